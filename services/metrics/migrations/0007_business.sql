-- How the business goes, by what the other services tell: which tenants there are and were, how workflows end, and what
-- tenants are charged a month. It outlives the tenant, of which it knows no more than the id, so it is no part of
-- `live_record`.

CREATE TYPE tenant_state AS ENUM ('registered', 'active', 'suspended', 'offboarding', 'archived');

-- What became of a tenant by one step of a workflow. What is taken back has never been, whichever is told first.
CREATE TABLE tenant_change (
    tenant_id   text COLLATE "C" NOT NULL,  -- which sorts fast
    workflow_id uuid NOT NULL,
    step        text NOT NULL,
    state       tenant_state,      -- null: it stays
    tier        text,              -- likewise
    changed_at  timestamptz,       -- when it was told first, by the clock of tenant; null: it has not been told yet
    is_undone   boolean NOT NULL,
    PRIMARY KEY (tenant_id, workflow_id, step)
);

-- The latest first.
CREATE INDEX tenant_change_of_state ON tenant_change (tenant_id, changed_at DESC, state DESC)
    WHERE state IS NOT NULL AND NOT is_undone;
CREATE INDEX tenant_change_of_tier ON tenant_change (tenant_id, changed_at DESC, workflow_id DESC) INCLUDE (tier)
    WHERE tier IS NOT NULL AND NOT is_undone;

-- A workflow, of whichever tenant.
CREATE TABLE workflow_run (
    workflow_id uuid PRIMARY KEY,
    kind        text NOT NULL,
    accepted_at timestamptz,   -- by the clock of onboarding; null: that it began has not been told yet
    ended_at    timestamptz,
    outcome     text CHECK (outcome IN ('completed', 'compensated', 'abandoned')),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
);

CREATE INDEX workflow_run_by_time ON workflow_run (accepted_at) INCLUDE (workflow_id, kind, ended_at, outcome);

-- That a step of it failed for good, or was tried again.
CREATE TABLE workflow_trouble (
    workflow_id uuid NOT NULL,
    step        text NOT NULL,
    trouble     text NOT NULL CHECK (trouble IN ('failure', 'retry')),
    attempt     integer NOT NULL,
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (workflow_id, step, trouble, attempt, occurred_at)
);

-- What a tenant is charged a month in base fees, as it was changed last in a calendar month of UTC.
CREATE TABLE recurring_revenue (
    tenant_id text COLLATE "C" NOT NULL,
    currency  text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    month     date NOT NULL CHECK (extract(day FROM month) = 1),
    edition   bigint NOT NULL,  -- billing's: of two amounts that of the higher is in force
    amount    numeric NOT NULL CHECK (amount >= 0 AND amount < 'Infinity'),
    PRIMARY KEY (tenant_id, currency, month) INCLUDE (edition, amount)
);

-- Where in a chain a time is: what is exported of the audit trail begins and ends there.
CREATE INDEX audit_entry_by_recording ON audit_entry (tenant_id, recorded_at, seq);
