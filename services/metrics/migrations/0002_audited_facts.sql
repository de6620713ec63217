-- What this service states of each tenant that others state too; the residue audit compares them.
CREATE VIEW audited_fact (tenant_id, fact, value) AS
    SELECT tenant_id, 'quotas',
           (SELECT coalesce(jsonb_object_agg(meter, limit_value), '{}')::text
            FROM quota WHERE quota.tenant_id = tracked_tenant.tenant_id)
    FROM tracked_tenant;
