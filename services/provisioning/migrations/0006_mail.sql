-- What becomes of the mails that tenants send from accounts of their own, and which of them may not send for now.

-- A tenant of whose mails something was heard; it goes with the environment.
--
--   sending  paused_at is null                                      -> paused
--   paused   what came of its mails was over a limit                -> sending, by an operator
CREATE TABLE mail_sending (
    tenant_id     text PRIMARY KEY REFERENCES environment (tenant_id) ON DELETE CASCADE,
    paused_at     timestamptz,
    reason        text CHECK (reason IN ('bounce_rate', 'complaint_rate')),
    grounds       jsonb,                      -- how many sends, bounces and complaints it was paused for
    counted_from  timestamptz,                -- only mails sent since then count for its rates; null: all
    -- The account is made so by and by: whoever wishes something else makes it due.
    wish          bigint NOT NULL DEFAULT 0,  -- the number of the wish that stands in `paused_at`
    due_at        timestamptz,                -- when to try next; null: the account is as it is wished
    claimed_until timestamptz,                -- until then somebody is trying
    attempts      integer NOT NULL DEFAULT 0,
    problem       text,                       -- why the last attempt failed, for people
    applied_at    timestamptz,                -- when the account was made as it is wished
    CHECK ((paused_at IS NULL) = (reason IS NULL)),
    CHECK ((paused_at IS NULL) = (grounds IS NULL)),
    CHECK (due_at IS NOT NULL OR claimed_until IS NULL)
) WITH (fillfactor = 80);

CREATE INDEX mail_sending_due_at ON mail_sending (due_at) WHERE due_at IS NOT NULL;

-- How much of one kind has happened to a tenant's mails in an hour.
CREATE TABLE mail_count (
    tenant_id text NOT NULL REFERENCES mail_sending ON DELETE CASCADE,
    hour      timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    event     text NOT NULL,
    count     bigint NOT NULL CHECK (count > 0),
    judged    bigint NOT NULL CHECK (judged BETWEEN 0 AND count),          -- what of it counts for rates
    told      bigint NOT NULL DEFAULT 0 CHECK (told BETWEEN 0 AND count),  -- what of it other services have heard of
    PRIMARY KEY (tenant_id, hour, event)
) WITH (fillfactor = 80);

CREATE INDEX mail_count_untold ON mail_count (tenant_id) WHERE told < count;
CREATE INDEX mail_count_hour ON mail_count (hour);

-- What came in and was no event of any tenant's mails.
CREATE TABLE mail_oddity (
    hour   timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),  -- when it was taken from the queue
    reason text NOT NULL,
    count  bigint NOT NULL CHECK (count > 0),
    PRIMARY KEY (hour, reason)
);

-- What was counted already. Its queue keeps a message for fourteen days at most and may give it away twice.
CREATE TABLE mail_seen (
    day        date NOT NULL,  -- of what is told, by the teller's clock, so that a repetition has the same
    message_id uuid NOT NULL,
    PRIMARY KEY (day, message_id)
) PARTITION BY RANGE (day);

-- The account of a silo is how it is known whose mails they are.
CREATE INDEX environment_account ON environment ((resources ->> 'accountId')) WHERE driver = 'aws';

-- Keeps daily partitions of `mail_seen` from one day to another: makes what is missing, drops what is older.
-- The service's own login may not change the schema, so it calls this, which runs as the owner.
CREATE FUNCTION keep_mail_days(first_day date, last_day date)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    wanted date;
    name   text;
BEGIN
    IF last_day - first_day NOT BETWEEN 0 AND 60 THEN
        RAISE EXCEPTION 'not some days: % to %', first_day, last_day;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('keep_mail_days'));
    FOR wanted IN SELECT generate_series(first_day, last_day, interval '1 day')::date LOOP
        name := 'mail_seen_' || to_char(wanted, 'YYYYMMDD');
        IF to_regclass(name) IS NULL THEN
            EXECUTE format('CREATE TABLE %I (LIKE mail_seen INCLUDING ALL)', name);
            EXECUTE format('ALTER TABLE mail_seen ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                           name, wanted, wanted + 1);
        END IF;
    END LOOP;
    FOR name IN
        SELECT relid::regclass::text FROM pg_partition_tree('mail_seen')
        WHERE isleaf AND relid::regclass::text < 'mail_seen_' || to_char(first_day, 'YYYYMMDD')
    LOOP
        EXECUTE format('DROP TABLE %I', name);
    END LOOP;
END $$;

-- The places of 0005, and the mails: nothing is left of a tenant that is gone.
CREATE OR REPLACE VIEW live_record AS
    SELECT tenant_id, 'environment' AS place FROM environment
    UNION ALL
    SELECT tenant_id, 'deployment' FROM deployment
    UNION ALL
    SELECT tenant_id, 'job' FROM job
    UNION ALL
    SELECT tenant_id, 'mail_sending' FROM mail_sending
    UNION ALL
    SELECT tenant_id, 'mail_count' FROM mail_count;
