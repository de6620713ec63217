-- How far the participant is with a step, as it told last; null: it has told nothing. Code of the release before leaves
-- it as it is, so it means something only while the step is waited for.
ALTER TABLE step ADD COLUMN progress jsonb;
