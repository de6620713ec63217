-- The catalog of names as the tenant service last told it; one row, or none before it was first heard.
CREATE TABLE catalog (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    revision bigint NOT NULL,
    content  jsonb NOT NULL
);

-- A workflow:
--   running -> completed
--   running -> compensating -> compensated
--              compensating -> needs_attention -> compensated | abandoned
CREATE TABLE workflow (
    id            uuid PRIMARY KEY,
    kind          text NOT NULL,
    version       integer NOT NULL,              -- of the definition it started with
    tenant_id     text NOT NULL,
    customer_name text NOT NULL,
    name_key      text NOT NULL,
    status        text NOT NULL DEFAULT 'running' CHECK (
        status IN ('running', 'compensating', 'needs_attention', 'completed', 'compensated', 'abandoned')),
    plan          json NOT NULL,                 -- the steps as they were when it started, in the text as it was written
    request       jsonb NOT NULL,
    failure       jsonb,
    seq           bigint NOT NULL DEFAULT 0,     -- of its last history entry
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    finished_at   timestamptz
) WITH (fillfactor = 70);

CREATE INDEX workflow_newest ON workflow (created_at DESC, id DESC);
CREATE INDEX workflow_of_status ON workflow (status, created_at DESC, id DESC);
CREATE INDEX workflow_of_tenant ON workflow (tenant_id, created_at DESC);

-- Two workflows never work on one tenant at the same time.
CREATE UNIQUE INDEX workflow_one_active ON workflow (tenant_id)
    WHERE status IN ('running', 'compensating', 'needs_attention');

CREATE TABLE step (
    workflow_id     uuid NOT NULL REFERENCES workflow,
    name            text NOT NULL,
    status          text NOT NULL,
    attempts        integer NOT NULL,
    undo_attempts   integer NOT NULL,
    may_have_effect boolean NOT NULL,
    ask_id          uuid,
    due_at          timestamptz,
    due             text,
    result          jsonb,
    error           jsonb,
    started_at      timestamptz,
    finished_at     timestamptz,
    PRIMARY KEY (workflow_id, name)
) WITH (fillfactor = 70);

-- The timers.
CREATE INDEX step_due ON step (due_at) WHERE due_at IS NOT NULL;

-- What happened, append-only; `position` orders the workflows of one tenant, which never overlap.
CREATE TABLE history (
    workflow_id uuid NOT NULL,
    seq         bigint NOT NULL,
    position    bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id   text NOT NULL,
    at          timestamptz NOT NULL,
    kind        text NOT NULL,
    step        text,
    attempt     integer,
    message_id  uuid,
    detail      jsonb NOT NULL,
    PRIMARY KEY (workflow_id, seq)
);

CREATE INDEX history_of_tenant ON history (tenant_id, position);

-- Customers' names that are taken: by a running onboarding, or by the tenant it ended with.
CREATE TABLE customer (
    name_key    text PRIMARY KEY,
    tenant_id   text NOT NULL,
    workflow_id uuid NOT NULL
);

CREATE INDEX customer_of_workflow ON customer (workflow_id);

-- The first answer to each idempotency key of each caller.
CREATE TABLE idempotency (
    principal   text NOT NULL,
    key         text NOT NULL,
    fingerprint bytea NOT NULL,
    workflow_id uuid NOT NULL,
    answer      jsonb NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (principal, key)
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is final', TG_OP, TG_TABLE_NAME;
END $$;

CREATE TRIGGER history_is_append_only BEFORE UPDATE OR DELETE ON history
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TRIGGER final_states_never_change BEFORE UPDATE OF status ON workflow
    FOR EACH ROW WHEN (OLD.status IN ('completed', 'compensated', 'abandoned') AND NEW.status <> OLD.status)
    EXECUTE FUNCTION refuse_change();

-- What onboarding holds of a tenant besides the workflows themselves, which are the record of what happened.
CREATE VIEW live_record (tenant_id, place) AS
    SELECT tenant_id, 'customer' FROM customer
    UNION ALL
    SELECT tenant_id, 'workflow in progress' FROM workflow
    WHERE status IN ('running', 'compensating', 'needs_attention');
