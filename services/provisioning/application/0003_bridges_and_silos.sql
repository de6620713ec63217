-- Beside the pool: bridges, which are schemas of one tenant alone in this database, and silos, which are databases of one
-- tenant alone on this server. Inside, a silo is a pool with one tenant in it: this same schema, copied from a template.

-- Roles, beside those of the pool; functions remember them through a rename. Nothing may be named after
-- current_database() from here on, for in silos that is something else; tenancy.tenant_role() is each one's own.
--   <database>_bridge    what every login of a bridge may do, whosever it is: connect, and ask who it is
--   <database>_carrier   writes in all tables of the pool; given to logins that carry one tenant's rows, and only that
--                        tenant's, for they stand behind the same wall
--   <database>_stager    makes temporary tables; given to all logins that carry rows, which Postgres lets nobody COPY
--                        into tables behind such a wall
-- Every bridge has a role of its own, named like its schema; so has every silo, named like its database.
DO $$
DECLARE
    bridge  text := left(current_database(), 50) || '_bridge';
    carrier text := left(current_database(), 50) || '_carrier';
    stager  text := left(current_database(), 50) || '_stager';
    auditor text := left(current_database(), 50) || '_auditor';
    wanted  text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY [bridge, carrier, stager] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
    EXECUTE format('CREATE FUNCTION tenancy.bridge_role() RETURNS text LANGUAGE sql IMMUTABLE RETURN %L', bridge);
    EXECUTE format('CREATE FUNCTION tenancy.carrier_role() RETURNS text LANGUAGE sql IMMUTABLE RETURN %L', carrier);
    EXECUTE format('CREATE FUNCTION tenancy.stager_role() RETURNS text LANGUAGE sql IMMUTABLE RETURN %L', stager);
    EXECUTE format('CREATE FUNCTION tenancy.auditor_role() RETURNS text LANGUAGE sql IMMUTABLE RETURN %L', auditor);
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), bridge);
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), stager);
    EXECUTE format('GRANT USAGE ON SCHEMA tenancy TO %I', bridge);
    EXECUTE format('GRANT EXECUTE ON FUNCTION tenancy.current_tenant() TO %I', bridge);
END $$;

-- The tenants that have a bridge here; open, throttled and closed as in tenancy.tenant. A row goes only together with its
-- schema and its role.
CREATE TABLE tenancy.bridge (
    tenant_id    text PRIMARY KEY,
    schema       text NOT NULL UNIQUE,
    connections  integer CHECK (connections > 0),
    throttled_at timestamptz,
    closed_at    timestamptz
);

-- The tenants that have a silo on this server. A row is there before its database and until after it.
--   half    template is null: not to be used yet, or no more; whatever there is of it can be dropped -> whole
--   whole   it can be used                                                                            -> half
CREATE TABLE tenancy.silo (
    tenant_id   text PRIMARY KEY,
    database    text NOT NULL UNIQUE,
    connections integer CHECK (connections > 0),
    template    text,                      -- whose schema it has
    sweep_at    timestamptz,               -- when the next of its logins expires; null: it has none
    issued      bigint NOT NULL DEFAULT 0  -- how many logins it ever had: who sweeps sees if there was one meanwhile
);

CREATE INDEX silo_sweep_at ON tenancy.silo (sweep_at);

-- The template of silos as it is now: a row at most.
CREATE TABLE tenancy.template (
    database text PRIMARY KEY
);

-- A login is of a pool's partition or of a bridge. One tenant can have both while it is moved.
ALTER TABLE tenancy.login
    DROP CONSTRAINT login_tenant_id_fkey,
    ADD COLUMN bridge text REFERENCES tenancy.bridge (schema),
    ADD COLUMN partition text GENERATED ALWAYS AS (CASE WHEN bridge IS NULL THEN tenant_id END) STORED
        REFERENCES tenancy.tenant;

CREATE INDEX login_bridge ON tenancy.login (bridge) WHERE bridge IS NOT NULL;
CREATE INDEX login_partition ON tenancy.login (partition);

-- Where tenants are in this database: in its pool, where bridge is null, or in a schema of their own.
CREATE VIEW tenancy.place AS
    SELECT tenant_id, NULL::text AS bridge, connections, throttled_at, closed_at FROM tenancy.tenant
    UNION ALL
    SELECT tenant_id, schema, connections, throttled_at, closed_at FROM tenancy.bridge;

-- Makes a role that is a login of a bridge, or of the pool where that is null.
CREATE FUNCTION tenancy.make_login(
    username text, holder text, verifier text, valid_until timestamptz, connections integer, bridge text
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO tenancy.login (login, tenant_id, bridge, expires_at) VALUES (username, holder, bridge, valid_until);
    -- ROLE makes this owner a member, who may therefore end the login's sessions and drop what it owns.
    EXECUTE format(
        'CREATE ROLE %I LOGIN PASSWORD %L VALID UNTIL %L CONNECTION LIMIT %s IN ROLE %I ROLE %I',
        username, verifier, valid_until, connections, coalesce(bridge, tenancy.tenant_role()), current_user
    );
END $$;

-- Makes a login for a tenant's bridge, or returns false if it has no open one; see tenancy.create_login.
CREATE FUNCTION tenancy.create_bridge_login(username text, holder text, verifier text, valid_until timestamptz)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place record;
BEGIN
    SELECT schema, tenancy.connections(connections) AS allowed INTO place FROM tenancy.bridge
    WHERE tenant_id = holder AND closed_at IS NULL AND throttled_at IS NULL FOR SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM tenancy.make_login(username, holder, verifier, valid_until, place.allowed, place.schema);
    EXECUTE format('ALTER ROLE %I SET search_path TO %I', username, place.schema);
    EXECUTE format('ALTER ROLE %I SET statement_timeout TO %L', username, '30s');
    EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout TO %L', username, '30s');
    RETURN true;
END $$;

-- Makes the login under which a tenant's rows are read or carried, throttled or not, or returns false if there is no such
-- place; see tenancy.create_reader. It is good for one connection, and as a carrier it may write in all tables whatever
-- the tenant is granted: the tenant's own rows, for its policies hold for it as well.
CREATE FUNCTION tenancy.create_session(
    username text, holder text, verifier text, good_for interval, bridged boolean, writes boolean
) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place text;
BEGIN
    IF bridged THEN
        SELECT schema INTO place FROM tenancy.bridge WHERE tenant_id = holder AND closed_at IS NULL FOR SHARE;
    ELSE
        PERFORM FROM tenancy.tenant WHERE tenant_id = holder AND closed_at IS NULL FOR SHARE;
    END IF;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM tenancy.make_login(username, holder, verifier, statement_timestamp() + good_for, 1, place);
    IF writes THEN
        EXECUTE format('GRANT %I TO %I', tenancy.stager_role(), username);
    END IF;
    IF writes AND bridged THEN
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO %I', place, username);
        EXECUTE format('GRANT SELECT, USAGE, UPDATE ON ALL SEQUENCES IN SCHEMA %I TO %I', place, username);
    ELSIF writes THEN
        PERFORM tenancy.equip_carriers();
        EXECUTE format('GRANT %I TO %I', tenancy.carrier_role(), username);
    END IF;
    RETURN true;
END $$;

-- Lets the logins of some tenants, in the pool or in bridges, do what their places say; those that are shut end.
CREATE FUNCTION tenancy.settle_logins(tenants text[], bridged boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT login.login, tenancy.connections(place.connections) AS allowed,
               place.throttled_at IS NOT NULL OR place.closed_at IS NOT NULL AS is_shut
        FROM tenancy.login
        JOIN tenancy.place
            ON place.tenant_id = login.tenant_id AND place.bridge IS NOT DISTINCT FROM login.bridge
        JOIN pg_roles ON rolname = login.login::name
        WHERE login.tenant_id = ANY (tenants) AND (login.bridge IS NOT NULL) = bridged
          AND (place.throttled_at IS NOT NULL OR place.closed_at IS NOT NULL
               OR rolconnlimit <> tenancy.connections(place.connections))
        ORDER BY login.login
        FOR UPDATE OF login
    LOOP
        EXECUTE format('ALTER ROLE %I CONNECTION LIMIT %s', found.login, found.allowed);
        IF found.is_shut THEN
            EXECUTE format('ALTER ROLE %I NOLOGIN', found.login);
            UPDATE tenancy.login SET expires_at = '-infinity' WHERE login = found.login;
        END IF;
    END LOOP;
END $$;

-- Lets nobody in for these tenants any more. It waits for no session of theirs.
CREATE OR REPLACE FUNCTION tenancy.close_tenants(tenants text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- FOR NO KEY UPDATE, because rows that a tenant is writing hold a key-share lock on their tenant.
    PERFORM FROM tenancy.tenant WHERE tenant_id = ANY (tenants) ORDER BY tenant_id FOR NO KEY UPDATE;
    UPDATE tenancy.tenant SET closed_at = statement_timestamp() WHERE tenant_id = ANY (tenants) AND closed_at IS NULL;
    PERFORM tenancy.settle_logins(tenants, false);
END $$;

CREATE FUNCTION tenancy.close_bridges(tenants text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM tenancy.bridge WHERE tenant_id = ANY (tenants) ORDER BY tenant_id FOR NO KEY UPDATE;
    UPDATE tenancy.bridge SET closed_at = statement_timestamp() WHERE tenant_id = ANY (tenants) AND closed_at IS NULL;
    PERFORM tenancy.settle_logins(tenants, true);
END $$;

-- Makes partitions be what is wanted, their existing logins included; those that are not there stay away.
CREATE OR REPLACE FUNCTION tenancy.configure_tenants(tenants text[], granted integer[], throttled boolean[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM tenancy.tenant WHERE tenant_id = ANY (tenants) ORDER BY tenant_id FOR NO KEY UPDATE;
    UPDATE tenancy.tenant
    SET connections = wanted.connections,
        throttled_at = CASE WHEN wanted.is_throttled THEN coalesce(tenant.throttled_at, statement_timestamp()) END
    FROM unnest(tenants, granted, throttled) AS wanted (tenant_id, connections, is_throttled)
    WHERE tenant.tenant_id = wanted.tenant_id
      AND (tenant.connections, tenant.throttled_at IS NOT NULL)
          IS DISTINCT FROM (wanted.connections, wanted.is_throttled);
    PERFORM tenancy.settle_logins(tenants, false);
END $$;

CREATE FUNCTION tenancy.configure_bridges(tenants text[], granted integer[], throttled boolean[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM tenancy.bridge WHERE tenant_id = ANY (tenants) ORDER BY tenant_id FOR NO KEY UPDATE;
    UPDATE tenancy.bridge
    SET connections = wanted.connections,
        throttled_at = CASE WHEN wanted.is_throttled THEN coalesce(bridge.throttled_at, statement_timestamp()) END
    FROM unnest(tenants, granted, throttled) AS wanted (tenant_id, connections, is_throttled)
    WHERE bridge.tenant_id = wanted.tenant_id
      AND (bridge.connections, bridge.throttled_at IS NOT NULL)
          IS DISTINCT FROM (wanted.connections, wanted.is_throttled);
    PERFORM tenancy.settle_logins(tenants, true);
END $$;

-- Ends the sessions of some expired logins, drops their roles with whatever they own, and returns how many; zero means
-- that there are none left that could be dropped. A login that still has a session afterwards stays for the next time.
CREATE OR REPLACE FUNCTION tenancy.sweep_logins(most integer) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    doomed  text[];
    expired text;
    swept   integer := 0;
BEGIN
    doomed := ARRAY (
        SELECT login FROM tenancy.login WHERE expires_at <= statement_timestamp() ORDER BY login LIMIT most FOR UPDATE
    );
    -- All are told before any is waited for: they end together.
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY (doomed);
    PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = ANY (doomed);
    PERFORM pg_stat_clear_snapshot();  -- or the sessions seen would be those of a moment ago
    FOREACH expired IN ARRAY doomed LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_stat_activity WHERE usename = expired);
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

-- Which of these tenants still have a session of a login that has ended.
CREATE FUNCTION tenancy.still_inside(tenants text[], bridged boolean) RETURNS text[]
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(DISTINCT tenant_id ORDER BY tenant_id) FROM tenancy.login
    WHERE tenant_id = ANY (tenants) AND (bridge IS NOT NULL) = bridged AND expires_at = '-infinity'
      AND EXISTS (SELECT FROM pg_stat_activity WHERE usename = login::name)
$$;

-- Puts a table of the application behind the wall, as every one must be whose first key column is its tenant_id; for
-- migrations that add tables. A table that is to be wanted less widely can have some of these rights taken again.
CREATE FUNCTION tenancy.protect_table(wanted regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
                   WHERE conrelid = wanted AND contype = 'p' AND attname = 'tenant_id' AND atttypid = 'text'::regtype)
    THEN
        RAISE EXCEPTION '% has no primary key that begins with a tenant_id of type text', wanted;
    END IF;
    IF EXISTS (SELECT FROM pg_index WHERE indrelid = wanted AND indisunique AND NOT EXISTS (
                   SELECT FROM pg_attribute WHERE attrelid = wanted AND attname = 'tenant_id' AND attnum = ANY (indkey)))
    THEN
        RAISE EXCEPTION '% has something unique without the tenant_id, which tells tenants of rows of others', wanted;
    END IF;
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', wanted);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %I', wanted, tenancy.tenant_role());
    EXECUTE format('GRANT SELECT (tenant_id) ON %s TO %I', wanted, tenancy.auditor_role());
    EXECUTE format(
        'CREATE POLICY own_rows ON %s TO %I
         USING (tenant_id = (SELECT tenancy.current_tenant()))
         WITH CHECK (tenant_id = (SELECT tenancy.current_tenant()))', wanted, tenancy.tenant_role()
    );
    EXECUTE format('CREATE POLICY audit ON %s FOR SELECT TO %I USING (true)', wanted, tenancy.auditor_role());
END $$;

-- Everything that is in a schema, found by what depends on that: pg_class has no index by schema, and thousands of bridges
-- make it long.
CREATE VIEW tenancy.relation AS
    SELECT nspname::text AS schema, pg_class.oid, relname, relkind, relispartition, relnamespace, reloptions
    FROM pg_namespace
    JOIN pg_depend ON refclassid = 'pg_namespace'::regclass AND refobjid = pg_namespace.oid
                  AND classid = 'pg_class'::regclass
    JOIN pg_class ON pg_class.oid = objid;

-- The tables of a place: what rows are read, carried and counted in.
CREATE VIEW tenancy.place_table AS
    SELECT class.schema, relname::text AS name, class.oid,
           coalesce((SELECT array_agg(attname::text ORDER BY position)
                     FROM pg_index
                     CROSS JOIN unnest(indkey) WITH ORDINALITY AS key (attnum, position)
                     JOIN pg_attribute ON attrelid = indrelid AND pg_attribute.attnum = key.attnum
                     WHERE indrelid = class.oid AND indisprimary), '{}') AS key,
           (SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
            WHERE attrelid = class.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '') AS columns,
           coalesce((SELECT array_agg(DISTINCT parent.relname::text)
                     FROM pg_constraint JOIN pg_class AS parent ON parent.oid = confrelid
                     WHERE conrelid = class.oid AND contype = 'f' AND parent.relnamespace = class.relnamespace
                       AND confrelid <> conrelid), '{}') AS parents
    FROM tenancy.relation AS class
    WHERE relkind IN ('r', 'p') AND NOT relispartition
      AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = class.oid AND attname = 'tenant_id' AND NOT attisdropped);

-- Lets carriers write in tables of the pool that were added since.
CREATE FUNCTION tenancy.equip_carriers() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    carrier text := tenancy.carrier_role();
    missing text;
BEGIN
    IF NOT has_schema_privilege(carrier, 'app', 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA app TO %I', carrier);
    END IF;
    FOR missing IN
        SELECT oid::regclass::text FROM tenancy.place_table WHERE schema = 'app'
          AND NOT (has_table_privilege(carrier, oid, 'SELECT') AND has_table_privilege(carrier, oid, 'INSERT')
                   AND has_table_privilege(carrier, oid, 'UPDATE') AND has_table_privilege(carrier, oid, 'DELETE'))
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %I', missing, carrier);
    END LOOP;
    FOR missing IN
        SELECT objid::regclass::text
        FROM pg_depend JOIN tenancy.place_table ON refobjid = oid JOIN pg_class ON pg_class.oid = objid
        WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
          AND schema = 'app' AND CASE WHEN relkind = 'S' THEN NOT has_sequence_privilege(carrier, objid, 'UPDATE') END
    LOOP
        EXECUTE format('GRANT SELECT, USAGE, UPDATE ON SEQUENCE %s TO %I', missing, carrier);
    END LOOP;
END $$;

-- What the auditor sees of rows in the pool: of some tenants, or of all where that is null; one record for each row.
-- Tables that the auditor was not given are left out: see tenancy.protect_table.
CREATE FUNCTION tenancy.rows_of(tenants text[]) RETURNS TABLE (tenant_id text, place text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found text;
BEGIN
    FOR found IN SELECT name FROM tenancy.tenant_table ORDER BY name LOOP
        IF has_column_privilege(found, 'tenant_id', 'SELECT') THEN
            RETURN QUERY EXECUTE format(
                'SELECT tenant_id, %L FROM %s WHERE $1 IS NULL OR tenant_id = ANY ($1)', found, found
            ) USING tenants;
        END IF;
    END LOOP;
END $$;

-- How many rows each table of a tenant's bridge has. The owner sees no rows of anybody's; so in the transaction that
-- drops them, and only there, the tables of this one schema let it.
CREATE FUNCTION tenancy.count_bridge(bridge text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found   record;
    rows    bigint;
    counted jsonb := '{}';
BEGIN
    FOR found IN SELECT name, oid::regclass AS place FROM tenancy.place_table WHERE schema = bridge ORDER BY name LOOP
        EXECUTE format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', found.place);
        EXECUTE format('SELECT count(*) FROM %s', found.place) INTO rows;
        counted := counted || jsonb_build_object(format('%I.%I', 'app', found.name), rows);
    END LOOP;
    RETURN counted;
END $$;

-- What every table has had deleted of a tenant of which there was nothing.
CREATE FUNCTION tenancy.no_rows() RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(name, 0), '{}') FROM tenancy.tenant_table
$$;

-- Keeps what a removal deletes, and returns it, or what was deleted when the same environment was removed before.
CREATE FUNCTION tenancy.remember_removal(environment uuid, rows jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    remembered jsonb := rows;
BEGIN
    DELETE FROM tenancy.removal WHERE removed_at < statement_timestamp() - interval '30 days';
    IF environment IS NOT NULL THEN
        INSERT INTO tenancy.removal (environment_id, deleted, removed_at)
        VALUES (environment, rows, statement_timestamp())
        ON CONFLICT (environment_id) DO UPDATE SET removed_at = removal.removed_at
        RETURNING deleted INTO remembered;
    END IF;
    RETURN remembered;
END $$;

-- Deletes closed partitions with all their rows, and returns how many rows of each table; of an environment that was
-- removed before, what was deleted then. An environment may be null where nobody knows of one.
CREATE OR REPLACE FUNCTION tenancy.remove_tenants(tenants text[], environments uuid[])
RETURNS TABLE (removed text, deleted jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    DELETE FROM tenancy.removal WHERE removed_at < statement_timestamp() - interval '30 days';
    PERFORM FROM tenancy.tenant WHERE tenant_id = ANY (tenants) ORDER BY tenant_id FOR UPDATE;
    RETURN QUERY
        WITH wanted AS (
            SELECT * FROM unnest(tenants, environments) AS wanted (tenant_id, environment_id)
        ), present AS (
            SELECT tenant_id, place, count(*) AS rows FROM tenancy.rows_of(tenants) GROUP BY tenant_id, place
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

-- Drops closed bridges with all their rows; the same to its caller as tenancy.remove_tenants.
CREATE FUNCTION tenancy.remove_bridges(tenants text[], environments uuid[])
RETURNS TABLE (removed text, deleted jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
DECLARE
    found   record;
    counted jsonb := '{}';
BEGIN
    FOR found IN
        SELECT tenant_id, schema FROM tenancy.bridge WHERE tenant_id = ANY (tenants) ORDER BY tenant_id FOR UPDATE
    LOOP
        counted := counted || jsonb_build_object(found.tenant_id, tenancy.count_bridge(found.schema));
        DELETE FROM tenancy.bridge WHERE tenant_id = found.tenant_id;  -- refused as long as it has logins
        EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', found.schema);
        EXECUTE format('DROP ROLE IF EXISTS %I', found.schema);
    END LOOP;
    RETURN QUERY
        SELECT wanted.tenant_id,
               tenancy.remember_removal(
                   wanted.environment_id, tenancy.no_rows() || coalesce(counted -> wanted.tenant_id, '{}')
               )
        FROM unnest(tenants, environments) AS wanted (tenant_id, environment_id)
        ORDER BY wanted.environment_id;
END $$;

-- Makes bridges for tenants, or brings those that are there up to date, and returns who has one that is on its way out:
-- it has to be removed first.
CREATE FUNCTION tenancy.make_bridges(tenants text[], schemas text[], granted integer[]) RETURNS SETOF text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted text;
    usable text[];
BEGIN
    INSERT INTO tenancy.bridge (tenant_id, schema, connections)
    SELECT * FROM unnest(tenants, schemas, granted) AS wanted (tenant_id, schema, connections) ORDER BY tenant_id
    ON CONFLICT (tenant_id) DO UPDATE SET connections = excluded.connections
    WHERE bridge.connections IS DISTINCT FROM excluded.connections;
    usable := tenancy.refresh_bridges(tenants);
    RETURN QUERY SELECT tenant_id FROM tenancy.bridge WHERE tenant_id = ANY (tenants) AND schema <> ALL (usable);
END $$;

-- Brings the bridges of tenants up to date with the schema of the pool: whatever tables, columns, constraints, indexes,
-- policies, triggers, views and grants that has, they have; and returns their schemas. A column that the pool has no more
-- is kept, and may be empty. Nothing else may be in them. Data is not touched: what a migration does to rows, it has to
-- do in bridges by itself.
CREATE FUNCTION tenancy.refresh_bridges(tenants text[]) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
DECLARE
    schemas text[];
    wanted  text;
BEGIN
    PERFORM FROM tenancy.bridge WHERE tenant_id = ANY (tenants) ORDER BY tenant_id FOR NO KEY UPDATE;
    schemas := ARRAY (
        SELECT schema FROM tenancy.bridge WHERE tenant_id = ANY (tenants) AND closed_at IS NULL ORDER BY schema
    );
    FOREACH wanted IN ARRAY schemas LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN IN ROLE %I', wanted, tenancy.bridge_role());
        END IF;
        IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = wanted) THEN
            EXECUTE format('CREATE SCHEMA %I', wanted);
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', wanted, wanted);
        END IF;
    END LOOP;
    PERFORM tenancy.copy_tables(schemas);
    PERFORM tenancy.copy_sequences(schemas);
    PERFORM tenancy.copy_parts(schemas, 'constraint');
    PERFORM tenancy.copy_parts(schemas, 'index');
    PERFORM tenancy.copy_parts(schemas, 'policy');
    PERFORM tenancy.copy_parts(schemas, 'trigger');
    PERFORM tenancy.copy_views(schemas);
    PERFORM tenancy.copy_grants(schemas);
    RETURN schemas;
END $$;

CREATE FUNCTION tenancy.copy_tables(schemas text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    source record;
    target text;
    place  text;
BEGIN
    FOR source IN SELECT oid, name FROM tenancy.place_table WHERE schema = 'app' ORDER BY oid LOOP
        FOREACH target IN ARRAY schemas LOOP
            place := format('%I.%I', target, source.name);
            IF to_regclass(place) IS NULL THEN
                EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING ALL)', place, source.oid::regclass);
                EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', place);
            ELSE
                PERFORM tenancy.copy_columns(source.oid, place);
            END IF;
        END LOOP;
    END LOOP;
END $$;

CREATE FUNCTION tenancy.copy_columns(source regclass, target regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT attname AS name, format_type(atttypid, atttypmod) AS type, attnotnull,
               CASE WHEN attcollation <> typcollation THEN ' COLLATE ' || attcollation::regcollation END AS collation,
               CASE WHEN attidentity = 'a' THEN ' GENERATED ALWAYS AS IDENTITY'
                    WHEN attidentity = 'd' THEN ' GENERATED BY DEFAULT AS IDENTITY'
                    WHEN attgenerated = 's' THEN format(' GENERATED ALWAYS AS (%s) STORED', pg_get_expr(adbin, adrelid))
                    WHEN attgenerated = 'v' THEN format(' GENERATED ALWAYS AS (%s) VIRTUAL', pg_get_expr(adbin, adrelid))
                    WHEN adbin IS NOT NULL THEN ' DEFAULT ' || pg_get_expr(adbin, adrelid)
               END AS filling
        FROM pg_attribute AS lacking
        JOIN pg_type ON pg_type.oid = atttypid
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attrelid = source AND attnum > 0 AND NOT attisdropped
          AND NOT EXISTS (SELECT FROM pg_attribute
                          WHERE attrelid = target AND attname = lacking.attname AND NOT attisdropped)
        ORDER BY attnum
    LOOP
        EXECUTE concat(format('ALTER TABLE %s ADD COLUMN %I %s', target, wanted.name, wanted.type), wanted.collation,
                       wanted.filling, CASE WHEN wanted.attnotnull THEN ' NOT NULL' END);
    END LOOP;
    FOR wanted IN
        SELECT attname AS name FROM pg_attribute AS kept
        WHERE attrelid = target AND attnum > 0 AND NOT attisdropped AND attnotnull
          AND NOT EXISTS (SELECT FROM pg_attribute
                          WHERE attrelid = source AND attname = kept.attname AND NOT attisdropped)
          AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = target AND indisprimary AND attnum = ANY (indkey))
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', target, wanted.name);
    END LOOP;
END $$;

-- Gives columns of a serial type a sequence of their own; those of identity columns have come with their tables.
CREATE FUNCTION tenancy.copy_sequences(schemas text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    source record;
    target text;
    place  text;
BEGIN
    FOR source IN
        SELECT relname AS name, seqtypid::regtype AS type, place_table.name AS table, attname AS column
        FROM pg_depend
        JOIN pg_class ON pg_class.oid = objid AND relkind = 'S'
        JOIN pg_sequence ON seqrelid = objid
        JOIN tenancy.place_table ON place_table.oid = refobjid AND schema = 'app'
        JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
        WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype = 'a'
    LOOP
        FOREACH target IN ARRAY schemas LOOP
            place := format('%I.%I', target, source.name);
            CONTINUE WHEN to_regclass(place) IS NOT NULL;
            EXECUTE format('CREATE SEQUENCE %s AS %s OWNED BY %I.%I.%I',
                           place, source.type, target, source.table, source.column);
            EXECUTE format('ALTER TABLE %I.%I ALTER COLUMN %I SET DEFAULT nextval(%L)',
                           target, source.table, source.column, place);
        END LOOP;
    END LOOP;
END $$;

-- The constraints, indexes, policies or triggers of the tables of a schema, each as what it says and as what would make
-- and drop it there; written so that the same texts mean the same in the schema that comes first in the search path.
CREATE FUNCTION tenancy.parts_of(place text, kind text, grantee text)
RETURNS TABLE (owner text, says text, making text, dropping text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('search_path', format('%I, app', place), true);
    IF kind = 'constraint' THEN
        RETURN QUERY
            SELECT name, pg_get_constraintdef(part.oid),
                   format('ALTER TABLE %I ADD CONSTRAINT %I %s', name, conname, pg_get_constraintdef(part.oid)),
                   format('ALTER TABLE %I DROP CONSTRAINT %I', name, conname)
            FROM tenancy.place_table JOIN pg_constraint AS part ON conrelid = place_table.oid
            WHERE schema = place AND contype IN ('c', 'f', 'u', 'p', 'x')
              -- A foreign key into tenancy.tenant is the pool's alone: to drop one would lock that table for everybody.
              AND NOT EXISTS (SELECT FROM pg_class WHERE pg_class.oid = confrelid
                              AND relnamespace = 'tenancy'::regnamespace)
            ORDER BY contype = 'f', conname;
    ELSIF kind = 'index' THEN
        RETURN QUERY
            SELECT name, indisunique || substring(pg_get_indexdef(indexrelid) FROM ' USING .*'),
                   format('CREATE %s INDEX ON %I %s', CASE WHEN indisunique THEN 'UNIQUE' END, name,
                          substring(pg_get_indexdef(indexrelid) FROM ' USING .*')),
                   format('DROP INDEX %I', pg_class.relname)
            FROM tenancy.place_table JOIN pg_index ON indrelid = place_table.oid
            JOIN pg_class ON pg_class.oid = indexrelid
            WHERE schema = place AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid);
    ELSIF kind = 'policy' THEN
        RETURN QUERY
            WITH policy AS (
                SELECT name, polname, concat(
                    CASE WHEN polpermissive THEN 'AS PERMISSIVE' ELSE 'AS RESTRICTIVE' END,
                    CASE polcmd WHEN 'r' THEN ' FOR SELECT' WHEN 'a' THEN ' FOR INSERT' WHEN 'w' THEN ' FOR UPDATE'
                                WHEN 'd' THEN ' FOR DELETE' ELSE ' FOR ALL' END,
                    ' TO CURRENT_USER',  -- stands for the group of tenants
                    ' USING (' || pg_get_expr(polqual, polrelid) || ')',
                    ' WITH CHECK (' || pg_get_expr(polwithcheck, polrelid) || ')'
                ) AS says
                FROM tenancy.place_table JOIN pg_policy ON polrelid = place_table.oid
                WHERE schema = place AND (0 = ANY (polroles) OR to_regrole(quote_ident(grantee)) = ANY (polroles))
            )
            SELECT name, polname || policy.says, format('CREATE POLICY %I ON %I %s', polname, name, policy.says),
                   format('DROP POLICY %I ON %I', polname, name)
            FROM policy;
    ELSE
        RETURN QUERY
            SELECT name, pg_get_triggerdef(part.oid, true), pg_get_triggerdef(part.oid, true),
                   format('DROP TRIGGER %I ON %I', tgname, name)
            FROM tenancy.place_table JOIN pg_trigger AS part ON tgrelid = place_table.oid
            WHERE schema = place AND NOT tgisinternal;
    END IF;
END $$;

-- Lets the constraints, indexes, policies or triggers in some schemas be what they are in the pool.
CREATE FUNCTION tenancy.copy_parts(schemas text[], kind text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    target  text;
    wanted  jsonb;
    present jsonb;
    changes text[];
    change  text;
BEGIN
    SELECT coalesce(jsonb_agg(to_jsonb(part)), '[]') INTO wanted
    FROM tenancy.parts_of('app', kind, tenancy.tenant_role()) AS part;
    FOREACH target IN ARRAY schemas LOOP
        SELECT coalesce(jsonb_agg(to_jsonb(part)), '[]') INTO present
        FROM tenancy.parts_of(target, kind, target) AS part;
        WITH ours AS (
            SELECT * FROM ROWS FROM (jsonb_to_recordset(wanted) AS (owner text, says text, making text))
                WITH ORDINALITY AS ours (owner, says, making, position)
        ), theirs AS (
            SELECT * FROM jsonb_to_recordset(present) AS theirs (owner text, says text, dropping text)
        )
        SELECT ARRAY (SELECT dropping FROM theirs
                      WHERE NOT EXISTS (SELECT FROM ours WHERE (ours.owner, ours.says) = (theirs.owner, theirs.says)))
            || ARRAY (SELECT regexp_replace(making, ' TO CURRENT_USER', format(' TO %I', target)) FROM ours
                      WHERE NOT EXISTS (SELECT FROM theirs WHERE (theirs.owner, theirs.says) = (ours.owner, ours.says))
                      ORDER BY position)
        INTO changes;
        PERFORM set_config('search_path', format('%I, app', target), true);
        FOREACH change IN ARRAY changes LOOP
            EXECUTE change;
        END LOOP;
    END LOOP;
END $$;

-- The views of a schema, in an order in which they can be made.
CREATE FUNCTION tenancy.views_of(place text) RETURNS TABLE (name text, making text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('search_path', format('%I, app', place), true);
    RETURN QUERY
        SELECT relname::text,
               concat(format('CREATE VIEW %I', relname), ' WITH (' || array_to_string(reloptions, ', ') || ')',
                      ' AS ', pg_get_viewdef(oid))
        FROM tenancy.relation WHERE schema = place AND relkind = 'v' ORDER BY oid;
END $$;

-- Lets the views in some schemas be those of the pool; where one is not, all are made anew.
CREATE FUNCTION tenancy.copy_views(schemas text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
DECLARE
    wanted text[];
    target text;
    each   text;
BEGIN
    wanted := ARRAY (SELECT making FROM tenancy.views_of('app'));
    FOREACH target IN ARRAY schemas LOOP
        CONTINUE WHEN wanted = ARRAY (SELECT making FROM tenancy.views_of(target));
        PERFORM set_config('search_path', format('%I, app', target), true);
        FOR each IN SELECT name FROM tenancy.views_of(target) LOOP
            EXECUTE format('DROP VIEW IF EXISTS %I.%I CASCADE', target, each);
        END LOOP;
        FOREACH each IN ARRAY wanted LOOP
            EXECUTE each;
        END LOOP;
    END LOOP;
END $$;

-- What a role itself may do with a table, view or sequence, as GRANT has it.
CREATE FUNCTION tenancy.granted(object oid, role text) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(privilege ORDER BY privilege), '{}') FROM (
        SELECT privilege_type FROM pg_class, aclexplode(relacl)
        WHERE oid = object AND grantee = to_regrole(quote_ident(role))
        UNION ALL
        SELECT format('%s (%I)', privilege_type, attname) FROM pg_attribute, aclexplode(attacl)
        WHERE attrelid = object AND NOT attisdropped AND grantee = to_regrole(quote_ident(role))
    ) AS grants (privilege)
$$;

-- Lets the roles of some bridges do in them what tenants may do in the pool.
CREATE FUNCTION tenancy.copy_grants(schemas text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    source record;
    target text;
    place  text;
BEGIN
    FOR source IN
        SELECT relname AS name, CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
               tenancy.granted(oid, tenancy.tenant_role()) AS rights
        FROM tenancy.relation WHERE schema = 'app' AND relkind IN ('r', 'p', 'v', 'S')
    LOOP
        FOREACH target IN ARRAY schemas LOOP
            place := format('%I.%I', target, source.name);
            CONTINUE WHEN to_regclass(place) IS NULL OR tenancy.granted(to_regclass(place), target) = source.rights;
            EXECUTE format('REVOKE ALL ON %s %s FROM %I', source.kind, place, target);
            CONTINUE WHEN source.rights = '{}';
            EXECUTE format('GRANT %s ON %s %s TO %I', array_to_string(source.rights, ', '), source.kind, place, target);
        END LOOP;
    END LOOP;
END $$;

-- How far each environment's last move has come. Whoever was thought dead and wakes up again must not begin anew what
-- others have finished meanwhile. It names no tenant and is forgotten after thirty days.
CREATE TABLE tenancy.move (
    environment_id uuid PRIMARY KEY,
    number         bigint NOT NULL,   -- of the move: later ones have higher ones
    stage          integer NOT NULL,  -- likewise
    moved_at       timestamptz NOT NULL
);

CREATE INDEX move_moved_at ON tenancy.move (moved_at);

CREATE SEQUENCE tenancy.move_number;

-- Tells whether a stage of a move may be done: neither a later one was begun, nor one of a later move.
CREATE FUNCTION tenancy.begin_stage(environment uuid, move bigint, next integer) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM tenancy.move WHERE moved_at < statement_timestamp() - interval '30 days';
    INSERT INTO tenancy.move AS begun (environment_id, number, stage, moved_at)
    VALUES (environment, move, next, statement_timestamp())
    ON CONFLICT (environment_id) DO UPDATE
    SET number = excluded.number, stage = excluded.stage, moved_at = excluded.moved_at
    WHERE (begun.number, begun.stage) <= (excluded.number, excluded.stage);
    RETURN FOUND;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tenancy FROM PUBLIC;

-- The audit counts what migrations add to the pool as well, and whoever has a bridge or a silo.
DO $$
DECLARE
    auditor text := tenancy.auditor_role();
    owner   text := current_user;
BEGIN
    EXECUTE format('GRANT SELECT (tenant_id) ON tenancy.bridge, tenancy.silo TO %I', auditor);
    EXECUTE format('GRANT SELECT ON tenancy.tenant_table TO %I', auditor);
    EXECUTE format('GRANT CREATE ON SCHEMA tenancy TO %I', auditor);
    EXECUTE format('GRANT %I TO %I', auditor, owner);
    EXECUTE format('ALTER FUNCTION tenancy.rows_of(text[]) OWNER TO %I', auditor);
    CREATE OR REPLACE VIEW tenancy.live_record AS
        SELECT tenant_id, 'tenancy.tenant' AS place FROM tenancy.tenant
        UNION ALL
        SELECT tenant_id, 'tenancy.login' FROM tenancy.login
        UNION ALL
        SELECT tenant_id, 'tenancy.bridge' FROM tenancy.bridge
        UNION ALL
        SELECT tenant_id, 'tenancy.silo' FROM tenancy.silo
        UNION ALL
        SELECT tenant_id, place FROM tenancy.rows_of(NULL);
    EXECUTE format('SET LOCAL ROLE %I', auditor);
    EXECUTE format('GRANT EXECUTE ON FUNCTION tenancy.rows_of(text[]) TO %I', owner);
    RESET ROLE;
    EXECUTE format('REVOKE %I FROM %I', auditor, owner);
    EXECUTE format('REVOKE CREATE ON SCHEMA tenancy FROM %I', auditor);
END $$;
