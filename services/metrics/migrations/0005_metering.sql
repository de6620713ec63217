-- What applications tell of their tenants' use: each event once, and what the events of each hour add up to.

-- Which events a meter takes, and what it makes of them. It never changes: another meaning is another meter.
ALTER TABLE meter
    ADD COLUMN event_type      text CHECK (event_type <> ''),   -- null: no event feeds it, only Tenure itself does
    ADD COLUMN aggregation     text NOT NULL DEFAULT 'sum' CHECK (aggregation IN ('count', 'sum', 'max', 'unique', 'latest')),
    ADD COLUMN value_path      text,                            -- RFC 9535, what it takes of an event's data
    ADD COLUMN dimensions      jsonb NOT NULL DEFAULT '{}',     -- name to path: by which it is told apart as well
    ADD COLUMN allows_negative boolean NOT NULL DEFAULT false,  -- values below zero
    ADD COLUMN created_at      timestamptz,                     -- null of those that came with Tenure
    ADD COLUMN retired_at      timestamptz,                     -- since then its events are refused
    ADD CONSTRAINT it_takes_a_value_unless_it_counts
        CHECK (event_type IS NULL OR (value_path IS NULL) = (aggregation = 'count'));

UPDATE meter SET event_type = 'api_call', aggregation = 'count' WHERE name = 'api_calls';
UPDATE meter SET event_type = 'storage', aggregation = 'max', value_path = '$.gb' WHERE name = 'storage_gb';
UPDATE meter SET event_type = 'seat', aggregation = 'unique', value_path = '$.user' WHERE name = 'seats';

-- In whose days and months a tenant's usage is read.
ALTER TABLE tracked_tenant ADD COLUMN time_zone text NOT NULL DEFAULT 'UTC';  -- of the IANA's database

-- Every event that was taken, by the day on which it happened; a day goes when it is older than the retention.
CREATE TABLE usage_event (
    tenant_id   text NOT NULL,
    source      text NOT NULL,
    id          text NOT NULL,
    type        text NOT NULL,
    happened_at timestamptz NOT NULL,  -- the event's time
    stored_at   timestamptz NOT NULL,  -- a bill is of what happened before one moment and was stored before another
    data        jsonb NOT NULL
) PARTITION BY RANGE (happened_at);

CREATE INDEX usage_event_of_tenant ON usage_event (tenant_id, type, happened_at);
CREATE INDEX usage_event_stored_at ON usage_event USING brin (stored_at);

-- Which events were taken, longer than late ones are: what makes each count once. One table for all days, because a
-- unique index cannot reach over partitions.
CREATE TABLE usage_key (
    tenant_id   text NOT NULL,
    key         bytea NOT NULL CHECK (octet_length(key) = 16),     -- BLAKE2b of the event's source and id
    digest      bytea NOT NULL CHECK (octet_length(digest) = 16),  -- BLAKE2b of all else that it says
    received_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, key)
);

-- An hour of usage of a meter, as its aggregation has it: the number of events, the sum or the greatest of their values,
-- how many different ones, or the latest. Hours are those of the tenant's time zone; their beginnings are moments.
ALTER TABLE usage_hour
    DROP CONSTRAINT usage_hour_hour_check,
    ADD COLUMN latest_at  timestamptz,  -- of the latest value: when it happened,
    ADD COLUMN latest_key bytea;        -- and what decides between two of one moment: usage_key.key

-- The same, by what the meter tells apart.
CREATE TABLE usage_dimension_hour (
    tenant_id  text NOT NULL,
    meter      text NOT NULL,
    hour       timestamptz NOT NULL,
    dimensions jsonb NOT NULL,          -- name to text
    quantity   numeric NOT NULL,
    latest_at  timestamptz,
    latest_key bytea,
    PRIMARY KEY (tenant_id, meter, hour, dimensions)
) WITH (fillfactor = 80);

-- The different values of an hour, for meters that count those: a day has as many as its hours have together.
CREATE TABLE usage_value (
    tenant_id  text NOT NULL,
    meter      text NOT NULL,
    hour       timestamptz NOT NULL,
    dimensions jsonb NOT NULL DEFAULT '{}',
    value      bytea NOT NULL CHECK (octet_length(value) = 16),  -- BLAKE2b of it
    PRIMARY KEY (tenant_id, meter, hour, dimensions, value)
);

-- Corrections: only ever appended, and part of the usage of the hour that they correct.
CREATE TABLE usage_amendment (
    amendment_id    uuid PRIMARY KEY,
    tenant_id       text NOT NULL,
    meter           text,                -- of an adjustment
    happened_at     timestamptz NOT NULL,  -- in the hour that is corrected
    quantity        numeric,             -- of an adjustment: what is added, below zero too
    source          text,                -- of an event that is void
    event_id        text,
    reason          text NOT NULL,
    actor           text NOT NULL,
    amended_at      timestamptz NOT NULL,
    idempotency_key text,                -- under which it was asked for, if the client gave one,
    fingerprint     bytea,               -- and what was asked for
    CONSTRAINT it_adjusts_or_voids CHECK (
        CASE WHEN event_id IS NULL THEN source IS NULL AND meter IS NOT NULL AND quantity IS NOT NULL
             ELSE source IS NOT NULL AND meter IS NULL AND quantity IS NULL END
    ),
    CHECK ((idempotency_key IS NULL) = (fingerprint IS NULL)),
    UNIQUE (tenant_id, idempotency_key)
);

CREATE INDEX usage_amendment_of_tenant ON usage_amendment (tenant_id, amended_at, amendment_id);
CREATE UNIQUE INDEX an_event_is_void_once ON usage_amendment (tenant_id, source, event_id) WHERE event_id IS NOT NULL;

-- All of it goes with the tenant, also where code that does not know it deletes that.
CREATE FUNCTION forget_usage() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM usage_event USING gone WHERE usage_event.tenant_id = gone.tenant_id;
    DELETE FROM usage_key USING gone WHERE usage_key.tenant_id = gone.tenant_id;
    DELETE FROM usage_dimension_hour USING gone WHERE usage_dimension_hour.tenant_id = gone.tenant_id;
    DELETE FROM usage_value USING gone WHERE usage_value.tenant_id = gone.tenant_id;
    DELETE FROM usage_amendment USING gone WHERE usage_amendment.tenant_id = gone.tenant_id;
    RETURN NULL;
END $$;

CREATE TRIGGER usage_goes_with_its_tenant AFTER DELETE ON tracked_tenant
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION forget_usage();

-- Makes the daily partitions that are named, and drops those before the oldest. What happened on a day without a
-- partition cannot be taken, so a day's is made long before it comes.
CREATE FUNCTION keep_usage_partitions(days date[], oldest date)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    day date;
    old text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('keep_usage_partitions'));
    FOREACH day IN ARRAY days LOOP
        IF to_regclass(format('usage_event_%s', to_char(day, 'YYYYMMDD'))) IS NULL THEN
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF usage_event FOR VALUES FROM (%L) TO (%L)',
                format('usage_event_%s', to_char(day, 'YYYYMMDD')),
                day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'
            );
        END IF;
    END LOOP;
    FOR old IN
        SELECT relid::regclass::text FROM pg_partition_tree('usage_event')
        WHERE isleaf AND relid::regclass::text ~ '^usage_event_\d{8}$'
          AND to_date(right(relid::regclass::text, 8), 'YYYYMMDD') < oldest
    LOOP
        EXECUTE format('DROP TABLE %I', old);
    END LOOP;
END $$;

-- The places of 0004, and those of metering.
CREATE OR REPLACE VIEW live_record AS
SELECT tenant_id, 'tracked_tenant' AS place FROM tracked_tenant
UNION ALL
SELECT tenant_id, 'quota' FROM quota
UNION ALL
SELECT tenant_id, 'usage_hour' FROM usage_hour
UNION ALL
SELECT tenant_id, 'usage_event' FROM usage_event
UNION ALL
SELECT tenant_id, 'usage_key' FROM usage_key
UNION ALL
SELECT tenant_id, 'usage_dimension_hour' FROM usage_dimension_hour
UNION ALL
SELECT tenant_id, 'usage_value' FROM usage_value
UNION ALL
SELECT tenant_id, 'usage_amendment' FROM usage_amendment;
