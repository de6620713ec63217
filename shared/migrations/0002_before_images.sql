-- What an operation found and changed: its undo brings that back, once. Null where undoing means deleting. With it the
-- tenant, so that it can be forgotten as soon as no undo can come any more.
ALTER TABLE operation
    ADD COLUMN before    jsonb,
    ADD COLUMN tenant_id text;

CREATE INDEX operation_before ON operation (tenant_id) WHERE before IS NOT NULL;
