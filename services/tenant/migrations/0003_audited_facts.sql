-- What this service states of each tenant that others state too; the residue audit compares them.
CREATE VIEW audited_fact (tenant_id, fact, value) AS
    SELECT tenant.tenant_id, stated.fact, stated.value
    FROM tenant JOIN tier ON tier.name = tenant.tier
    CROSS JOIN LATERAL (VALUES
        ('state', tenant.state), ('plan', tier.plan), ('isolation', tier.isolation), ('quotas', tier.quotas::text)
    ) AS stated (fact, value)
    WHERE tenant.state <> 'archived';
