-- The data lake: what is known of tenants and their usage, written as Parquet files, each row in one of them.

-- In which transaction a row was written: all that were written before the oldest transaction that still runs can be
-- seen, and none comes any more. Rows that are there already have that of this migration. It costs an event a few bytes,
-- and no second row.
ALTER TABLE usage_event ADD COLUMN written_in bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint;
ALTER TABLE usage_amendment ADD COLUMN written_in bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint;
ALTER TABLE audit_entry ADD COLUMN written_in bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint;

CREATE INDEX usage_event_written_in ON usage_event (written_in);
CREATE INDEX usage_amendment_written_in ON usage_amendment (written_in);
CREATE INDEX audit_entry_written_in ON audit_entry (written_in);

-- What was told of tenants, each once: an answer that is told again comes by another message. It goes some weeks after it
-- is in the lake. The last fact of a tenant comes when nothing else is left of it, so this is no part of `live_record`.
CREATE TABLE lake_tenant_fact (
    fact_id     uuid PRIMARY KEY,
    tenant_id   text NOT NULL,
    type        text NOT NULL,         -- as it travels
    state       text,                  -- in which the tenant is since then; null where the fact does not tell
    tier        text,                  -- likewise
    workflow_id uuid,
    step        text,
    happened_at timestamptz NOT NULL,
    fact        jsonb NOT NULL,
    written_in  bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    UNIQUE (workflow_id, step, type)
);

CREATE INDEX lake_tenant_fact_written_in ON lake_tenant_fact (written_in);

-- How far each kind of row has been dealt out to files.
CREATE TABLE lake_stream (
    stream text PRIMARY KEY,
    upto   bigint NOT NULL DEFAULT 0   -- all that was written in transactions before this one has a file
);

INSERT INTO lake_stream (stream) VALUES ('usage'), ('amendments'), ('tenants'), ('audit');

-- A file and what is in it, decided before it is written: whoever writes it, and however often, writes the same rows
-- under the same name.
CREATE TABLE lake_file (
    file_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream     text NOT NULL REFERENCES lake_stream,
    hour       timestamptz NOT NULL,   -- in which its rows happened
    first      bigint NOT NULL,        -- they were written in this transaction or a later one,
    upto       bigint NOT NULL,        -- and before this one
    planned_at timestamptz NOT NULL,
    failures   integer NOT NULL DEFAULT 0,
    written_at timestamptz,            -- null: not yet
    row_count  bigint,
    byte_count bigint,
    UNIQUE (stream, hour, first),
    CHECK (first < upto)
);

CREATE INDEX lake_file_unwritten ON lake_file (failures, file_id) WHERE written_at IS NULL;
CREATE INDEX lake_file_written_at ON lake_file (written_at) WHERE written_at IS NOT NULL;
