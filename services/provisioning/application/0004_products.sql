-- Beside a tenant's own place: places of products that have an environment of their own. What the tables here call a
-- tenant_id, and tenancy.current_tenant() returns, is '<tenant>:<product>' in such a place. No tenant's id holds a colon,
-- so the wall is the same between two places of one tenant as between two tenants.

-- Every place where a tenant has left something in this database; the residue audit counts these rows. They are the
-- tenant's whichever place they are in, which is said of what they are in: 'tenancy.tenant:notes', of product notes.
DO $$
DECLARE
    auditor text := tenancy.auditor_role();
    owner   text := current_user;
BEGIN
    EXECUTE format('GRANT %I TO %I', auditor, owner);
    CREATE OR REPLACE VIEW tenancy.live_record AS
        SELECT split_part(tenant_id, ':', 1) AS tenant_id, concat(place, substring(tenant_id FROM ':.*')) AS place
        FROM (
            SELECT tenant_id, 'tenancy.tenant' AS place FROM tenancy.tenant
            UNION ALL
            SELECT tenant_id, 'tenancy.login' FROM tenancy.login
            UNION ALL
            SELECT tenant_id, 'tenancy.bridge' FROM tenancy.bridge
            UNION ALL
            SELECT tenant_id, 'tenancy.silo' FROM tenancy.silo
            UNION ALL
            SELECT tenant_id, place FROM tenancy.rows_of(NULL)
        ) AS kept;
    EXECUTE format('REVOKE %I FROM %I', auditor, owner);
END $$;
