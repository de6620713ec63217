-- Partitions that can be configured and throttled, whose rows can be exported, and whose removal is counted.

-- The tenants that have a partition here.
--   open       logins can be issued                                                     -> throttled, closed
--   throttled  throttled_at is set: no login is valid and none is issued; rows are kept -> open, closed
--   closed     on the way out: no login is valid any more, rows are about to be deleted    final
ALTER TABLE tenancy.tenant
    ADD COLUMN connections  integer CHECK (connections > 0),  -- that each login may hold; null: tenancy.connections
    ADD COLUMN throttled_at timestamptz;

-- How many connections a login may hold, given what its tenant was granted, if anything.
CREATE FUNCTION tenancy.connections(granted integer) RETURNS integer LANGUAGE sql IMMUTABLE RETURN coalesce(granted, 10);

-- Makes a role that is a login of a tenant's.
CREATE FUNCTION tenancy.make_role(
    username text, holder text, verifier text, valid_until timestamptz, connections integer
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO tenancy.login (login, tenant_id, expires_at) VALUES (username, holder, valid_until);
    -- ROLE makes this owner a member, who may therefore end the login's sessions and drop what it owns.
    EXECUTE format(
        'CREATE ROLE %I LOGIN PASSWORD %L VALID UNTIL %L CONNECTION LIMIT %s IN ROLE %I ROLE %I',
        username, verifier, valid_until, connections, tenancy.tenant_role(), current_user
    );
END $$;

-- Makes a login for a tenant, or returns false if the tenant has no open partition.
-- The verifier is what Postgres keeps of a password (SCRAM-SHA-256), so that no log of the server ever shows the password.
CREATE OR REPLACE FUNCTION tenancy.create_login(username text, holder text, verifier text, valid_until timestamptz)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    allowed integer;
BEGIN
    -- Waits for a closing or throttling in progress, and makes a later one wait, so that it finds this login.
    SELECT tenancy.connections(connections) INTO allowed FROM tenancy.tenant
    WHERE tenant_id = holder AND closed_at IS NULL AND throttled_at IS NULL FOR SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM tenancy.make_role(username, holder, verifier, valid_until, allowed);
    -- Only defaults, which the tenant may change: a convenience, and so that nothing forgotten holds locks for long.
    EXECUTE format('ALTER ROLE %I SET search_path TO app', username);
    EXECUTE format('ALTER ROLE %I SET statement_timeout TO %L', username, '30s');
    EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout TO %L', username, '30s');
    RETURN true;
END $$;

-- Makes the login under which a tenant's rows are exported, throttled or not, or returns false if there is no partition.
--
-- The owner of the tables sees no rows, and must not: so an export is read as the tenant itself, from behind the same
-- wall, with the same policies. Whatever the tenant sees is in it, from tables made later too; what is another tenant's
-- cannot be. The login is good for one connection and one minute, its password never leaves the process that asked for
-- it, and no role exists that could read the rows of all tenants.
CREATE FUNCTION tenancy.create_reader(username text, holder text, verifier text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM tenancy.tenant WHERE tenant_id = holder AND closed_at IS NULL FOR SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM tenancy.make_role(username, holder, verifier, statement_timestamp() + interval '1 minute', 1);
    RETURN true;
END $$;

-- Makes partitions be what is wanted, their existing logins included; those that are not there stay away.
CREATE FUNCTION tenancy.configure_tenants(tenants text[], granted integer[], throttled boolean[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found record;
BEGIN
    -- FOR NO KEY UPDATE, because rows that a tenant is writing hold a key-share lock on their tenant.
    PERFORM FROM tenancy.tenant WHERE tenant_id = ANY (tenants) ORDER BY tenant_id FOR NO KEY UPDATE;
    UPDATE tenancy.tenant
    SET connections = wanted.connections,
        throttled_at = CASE WHEN wanted.is_throttled THEN coalesce(tenant.throttled_at, statement_timestamp()) END
    FROM unnest(tenants, granted, throttled) AS wanted (tenant_id, connections, is_throttled)
    WHERE tenant.tenant_id = wanted.tenant_id
      AND (tenant.connections, tenant.throttled_at IS NOT NULL)
          IS DISTINCT FROM (wanted.connections, wanted.is_throttled);
    FOR found IN
        SELECT login.login, tenant.throttled_at IS NOT NULL AS is_throttled,
               tenancy.connections(tenant.connections) AS allowed
        FROM tenancy.login
        JOIN tenancy.tenant USING (tenant_id)
        JOIN pg_roles ON rolname = login.login::name
        WHERE tenant_id = ANY (tenants)
          AND (tenant.throttled_at IS NOT NULL OR rolconnlimit <> tenancy.connections(tenant.connections))
        ORDER BY login.login
        FOR UPDATE OF login
    LOOP
        EXECUTE format('ALTER ROLE %I CONNECTION LIMIT %s', found.login, found.allowed);
        IF found.is_throttled THEN
            EXECUTE format('ALTER ROLE %I NOLOGIN', found.login);
            UPDATE tenancy.login SET expires_at = '-infinity' WHERE login = found.login;
        END IF;
    END LOOP;
END $$;

-- Ends the sessions of some expired logins, drops their roles with whatever they own, and returns how many; zero means
-- that there are none left that could be dropped. Dropping a role takes long enough for thousands of them to be too many
-- for one transaction, which would then be rolled back and repeated for ever. The function without a bound is for
-- processes of the release before.
CREATE FUNCTION tenancy.sweep_logins(most integer) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    expired text;
    swept   integer := 0;
BEGIN
    FOR expired IN
        SELECT login FROM tenancy.login WHERE expires_at <= statement_timestamp() ORDER BY login LIMIT most FOR UPDATE
    LOOP
        PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = expired;
        BEGIN
            EXECUTE format('DROP OWNED BY %I', expired);
            EXECUTE format('DROP ROLE %I', expired);
            DELETE FROM tenancy.login WHERE login = expired;
            swept := swept + 1;
        EXCEPTION WHEN dependent_objects_still_exist THEN
            -- It owns something in another database of this server. That must not keep the others alive.
            RAISE WARNING 'login % cannot be dropped: %', expired, SQLERRM;
        END;
    END LOOP;
    RETURN swept;
END $$;

-- The tables in which tenants have rows: what is exported, and what is counted when a tenant is removed.
CREATE VIEW tenancy.tenant_table AS
    SELECT format('%I.%I', nspname, relname) AS name,
           (SELECT array_agg(attname::text ORDER BY position)
            FROM pg_index
            CROSS JOIN unnest(indkey) WITH ORDINALITY AS key (attnum, position)
            JOIN pg_attribute ON attrelid = indrelid AND pg_attribute.attnum = key.attnum
            WHERE indrelid = class.oid AND indisprimary) AS key
    FROM pg_class AS class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = 'app' AND relkind IN ('r', 'p') AND NOT relispartition
      AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = class.oid AND attname = 'tenant_id' AND NOT attisdropped);

-- What removals have deleted, so that a removal whose caller crashed before it could tell is answered alike when it is
-- repeated. It names no tenant and is forgotten after thirty days.
CREATE TABLE tenancy.removal (
    environment_id uuid PRIMARY KEY,
    deleted        jsonb NOT NULL,  -- how many rows, by table
    removed_at     timestamptz NOT NULL
);

CREATE INDEX removal_removed_at ON tenancy.removal (removed_at);

-- Deletes closed partitions with all their rows, and returns how many rows of each table; of an environment that was
-- removed before, what was deleted then. An environment may be null where nobody knows of one.
CREATE FUNCTION tenancy.remove_tenants(tenants text[], environments uuid[])
RETURNS TABLE (removed text, deleted jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    DELETE FROM tenancy.removal WHERE removed_at < statement_timestamp() - interval '30 days';
    PERFORM FROM tenancy.tenant WHERE tenant_id = ANY (tenants) ORDER BY tenant_id FOR UPDATE;
    -- The owner sees no rows, but may count them with the auditor's eyes.
    RETURN QUERY
        WITH wanted AS (
            SELECT * FROM unnest(tenants, environments) AS wanted (tenant_id, environment_id)
        ), present AS (
            SELECT tenant_id, place, count(*) AS rows FROM tenancy.live_record
            WHERE tenant_id = ANY (tenants) GROUP BY tenant_id, place
        ), counted AS (
            SELECT wanted.tenant_id, wanted.environment_id,
                   coalesce(jsonb_object_agg(name, coalesce(present.rows, 0)) FILTER (WHERE name IS NOT NULL), '{}')
                       AS deleted
            FROM wanted
            LEFT JOIN tenancy.tenant_table ON true
            LEFT JOIN present ON present.tenant_id = wanted.tenant_id AND present.place = name
            GROUP BY wanted.tenant_id, wanted.environment_id
        ), remembered AS (
            INSERT INTO tenancy.removal (environment_id, deleted, removed_at)
            SELECT environment_id, deleted, statement_timestamp() FROM counted WHERE environment_id IS NOT NULL
            ORDER BY environment_id
            ON CONFLICT (environment_id) DO UPDATE SET removed_at = removal.removed_at  -- returns what was deleted then
            RETURNING environment_id, deleted
        )
        SELECT counted.tenant_id, coalesce(remembered.deleted, counted.deleted)
        FROM counted LEFT JOIN remembered USING (environment_id);
    DELETE FROM tenancy.tenant WHERE tenant_id = ANY (tenants);
END $$;
