-- The kernel's tables, the same in every service's database.

-- Messages that took effect here. Partitioned by the time in the UUIDv7, so that old ones leave by DROP, never by DELETE.
CREATE TABLE inbox (
    message_id uuid PRIMARY KEY
) PARTITION BY RANGE (message_id);

-- Identities outside every daily partition: other versions of UUID, clocks far off, simulated time.
CREATE TABLE inbox_default PARTITION OF inbox DEFAULT;

-- Messages that are committed but not yet confirmed by the broker. Deleted when confirmed.
CREATE TABLE outbox (
    id          uuid PRIMARY KEY,
    exchange    text NOT NULL,
    routing_key text NOT NULL,
    event       bytea NOT NULL,              -- a CloudEvent in JSON, exactly as it travels
    due_at      timestamptz NOT NULL         -- the sweeper leaves it alone until then: whoever wrote it is sending it
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE INDEX outbox_due ON outbox (due_at, id);

-- The barrier: what this service did for one step of one workflow, and what it answered.
--   done     the ask took effect
--   refused  the ask was refused; nothing to undo
--   undone   the undo took effect, or came first: the ask will never take effect any more
CREATE TABLE operation (
    workflow_id uuid NOT NULL,
    step        text NOT NULL,
    state       text NOT NULL CHECK (state IN ('done', 'refused', 'undone')),
    answer_type text,                        -- the last answer, given again to a repeated ask
    answer      bytea,
    PRIMARY KEY (workflow_id, step)
) WITH (fillfactor = 80);

-- Keeps daily partitions of the inbox: makes those for the given days, drops those older than the retention.
-- The service's own login may not change the schema, so it calls this, which runs as the owner.
CREATE FUNCTION keep_inbox_partitions(names text[], lows uuid[], highs uuid[], oldest text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    old text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('keep_inbox_partitions'));
    FOR i IN 1 .. coalesce(array_length(names, 1), 0) LOOP
        IF names[i] !~ '^inbox_\d{8}$' THEN
            RAISE EXCEPTION 'not a partition name: %', names[i];
        END IF;
        IF to_regclass(names[i]) IS NULL THEN
            -- What came before there was a partition for its day is in the default one, and has to move.
            LOCK TABLE inbox_default IN ACCESS EXCLUSIVE MODE;
            EXECUTE format('CREATE TABLE %I (LIKE inbox INCLUDING ALL)', names[i]);
            EXECUTE format(
                'WITH moved AS (DELETE FROM inbox_default WHERE message_id >= %L AND message_id < %L RETURNING message_id)
                 INSERT INTO %I SELECT message_id FROM moved', lows[i], highs[i], names[i]
            );
            EXECUTE format('ALTER TABLE inbox ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', names[i], lows[i], highs[i]);
        END IF;
    END LOOP;
    FOR old IN
        SELECT relid::regclass::text FROM pg_partition_tree('inbox')
        WHERE isleaf AND relid::regclass::text ~ '^inbox_\d{8}$' AND relid::regclass::text < oldest
    LOOP
        EXECUTE format('DROP TABLE %I', old);
    END LOOP;
END $$;
