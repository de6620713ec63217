-- What an operation found and changed: its undo brings that back, once. Null where undoing means deleting. With it whom
-- it is about, so that it can be forgotten as soon as no undo can come any more.
ALTER TABLE operation
    ADD COLUMN before  jsonb,
    ADD COLUMN subject text;

CREATE INDEX operation_before ON operation (subject) WHERE before IS NOT NULL;
