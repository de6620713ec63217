-- What this service states of each tenant that others state too; the residue audit compares them.
CREATE VIEW audited_fact (tenant_id, fact, value) AS
    SELECT environment.tenant_id, stated.fact, stated.value
    FROM environment
    CROSS JOIN LATERAL (VALUES
        ('isolation', isolation), ('throttled', (throttled_at IS NOT NULL)::text)
    ) AS stated (fact, value);
