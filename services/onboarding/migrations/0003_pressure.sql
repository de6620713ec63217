-- How many workflows have ended in the last few seconds tells how many more may begin.
CREATE INDEX workflow_finished ON workflow (finished_at) WHERE finished_at IS NOT NULL;
