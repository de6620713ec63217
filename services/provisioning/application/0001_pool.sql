-- The application database of pooled tenants: every tenant's rows in the same tables, parted by row-level security.
--
-- Who a session works for follows from the login it authenticated as, which no SQL can change: not SET ROLE, not set_config.
-- Whoever has no valid login is no tenant and sees nothing; that includes the owner of the tables, so that a forgotten view
-- or SECURITY DEFINER function of the owner's leaks nothing either.

CREATE SCHEMA tenancy;
CREATE SCHEMA app;

-- Roles belong to the whole server. So their names carry the database's, and functions remember them through a rename:
--   <database>_tenant    what every tenant's login may do
--   <database>_auditor   sees which tenants have rows, and nothing of the rows
DO $$
DECLARE
    tenant  text := left(current_database(), 50) || '_tenant';
    auditor text := left(current_database(), 50) || '_auditor';
    wanted  text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY [tenant, auditor] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
    EXECUTE format('CREATE FUNCTION tenancy.tenant_role() RETURNS text LANGUAGE sql IMMUTABLE RETURN %L', tenant);
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), tenant);
    EXECUTE format('GRANT USAGE ON SCHEMA app, tenancy TO %I', tenant);
    EXECUTE format('GRANT USAGE ON SCHEMA app, tenancy TO %I', auditor);
END $$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- The tenants that have a partition here.
--   open     closed_at is null: logins can be issued                                  -> closed
--   closed   on the way out: no login is valid any more, rows are about to be deleted   final
CREATE TABLE tenancy.tenant (
    tenant_id text PRIMARY KEY,
    closed_at timestamptz
);

-- The short-lived logins of tenants, each one a role of the server. A row goes only together with its role.
CREATE TABLE tenancy.login (
    login      text PRIMARY KEY,
    tenant_id  text NOT NULL REFERENCES tenancy.tenant,
    expires_at timestamptz NOT NULL
);

CREATE INDEX login_tenant_id ON tenancy.login (tenant_id);
CREATE INDEX login_expires_at ON tenancy.login (expires_at);

-- Which tenant this session works for; null, and therefore nobody's, unless its login is valid at this moment.
CREATE FUNCTION tenancy.current_tenant() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
    SELECT tenant_id FROM tenancy.login WHERE login = session_user AND expires_at > statement_timestamp()
$$;

-- Makes a login for a tenant, or returns false if the tenant has no open partition.
-- The verifier is what Postgres keeps of a password (SCRAM-SHA-256), so that no log of the server ever shows the password.
CREATE FUNCTION tenancy.create_login(username text, holder text, verifier text, valid_until timestamptz) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Waits for a closing in progress, and makes a later one wait, so that it finds this login.
    PERFORM FROM tenancy.tenant WHERE tenant_id = holder AND closed_at IS NULL FOR SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO tenancy.login (login, tenant_id, expires_at) VALUES (username, holder, valid_until);
    -- ROLE makes this owner a member, who may therefore end the login's sessions and drop what it owns.
    EXECUTE format(
        'CREATE ROLE %I LOGIN PASSWORD %L VALID UNTIL %L CONNECTION LIMIT 10 IN ROLE %I ROLE %I',
        username, verifier, valid_until, tenancy.tenant_role(), current_user
    );
    -- Only defaults, which the tenant may change: a convenience, and so that nothing forgotten holds locks for long.
    EXECUTE format('ALTER ROLE %I SET search_path TO app', username);
    EXECUTE format('ALTER ROLE %I SET statement_timeout TO %L', username, '30s');
    EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout TO %L', username, '30s');
    RETURN true;
END $$;

-- Lets nobody in for these tenants any more. It waits for no session of theirs.
CREATE FUNCTION tenancy.close_tenants(tenants text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    doomed text;
BEGIN
    -- FOR NO KEY UPDATE, because rows that a tenant is writing hold a key-share lock on their tenant.
    PERFORM FROM tenancy.tenant WHERE tenant_id = ANY (tenants) ORDER BY tenant_id FOR NO KEY UPDATE;
    UPDATE tenancy.tenant SET closed_at = statement_timestamp() WHERE tenant_id = ANY (tenants) AND closed_at IS NULL;
    FOR doomed IN SELECT login FROM tenancy.login WHERE tenant_id = ANY (tenants) ORDER BY login FOR UPDATE LOOP
        EXECUTE format('ALTER ROLE %I NOLOGIN', doomed);
        UPDATE tenancy.login SET expires_at = '-infinity' WHERE login = doomed;
    END LOOP;
END $$;

-- Ends the sessions of expired logins, drops their roles with whatever they own, and returns how many.
CREATE FUNCTION tenancy.sweep_logins() RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    expired text;
    swept   integer := 0;
BEGIN
    FOR expired IN
        SELECT login FROM tenancy.login WHERE expires_at <= statement_timestamp() ORDER BY login FOR UPDATE
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

-- The sample product 'notes': how every table of an application in this database is made.
CREATE TABLE app.note (
    tenant_id  text NOT NULL DEFAULT tenancy.current_tenant() REFERENCES tenancy.tenant ON DELETE CASCADE,
    note_id    uuid NOT NULL DEFAULT gen_random_uuid(),
    body       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, note_id)  -- the tenant first: for the index, and so that no key tells of another tenant's rows
);

ALTER TABLE app.note ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.note FORCE ROW LEVEL SECURITY;

-- Every place where a tenant has left something in this database; the residue audit counts these rows.
CREATE VIEW tenancy.live_record AS
    SELECT tenant_id, 'tenancy.tenant' AS place FROM tenancy.tenant
    UNION ALL
    SELECT tenant_id, 'tenancy.login' FROM tenancy.login
    UNION ALL
    SELECT tenant_id, 'app.note' FROM app.note;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tenancy FROM PUBLIC;

DO $$
DECLARE
    tenant  text := tenancy.tenant_role();
    auditor text := left(current_database(), 50) || '_auditor';
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION tenancy.current_tenant() TO %I', tenant);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON app.note TO %I', tenant);
    -- The sub-select is evaluated once per statement, not once per row.
    EXECUTE format(
        'CREATE POLICY own_rows ON app.note TO %I
         USING (tenant_id = (SELECT tenancy.current_tenant()))
         WITH CHECK (tenant_id = (SELECT tenancy.current_tenant()))', tenant
    );
    -- A view reads with its owner's rights. The owner of the tables must not have the auditor's, so the loan is returned.
    EXECUTE format('GRANT SELECT (tenant_id) ON tenancy.tenant, tenancy.login, app.note TO %I', auditor);
    EXECUTE format('CREATE POLICY audit ON app.note FOR SELECT TO %I USING (true)', auditor);
    EXECUTE format('GRANT CREATE ON SCHEMA tenancy TO %I', auditor);
    EXECUTE format('GRANT %I TO %I', auditor, current_user);
    EXECUTE format('ALTER VIEW tenancy.live_record OWNER TO %I', auditor);
    EXECUTE format('GRANT SELECT ON tenancy.live_record TO %I', current_user);
    EXECUTE format('REVOKE %I FROM %I', auditor, current_user);
    EXECUTE format('REVOKE CREATE ON SCHEMA tenancy FROM %I', auditor);
END $$;
