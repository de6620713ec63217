-- What this service states of each tenant that others state too; the residue audit compares them.
CREATE VIEW audited_fact (tenant_id, fact, value) AS
    SELECT account.tenant_id, stated.fact, stated.value
    FROM subscription JOIN account USING (account_id)
    CROSS JOIN LATERAL (VALUES
        ('plan', subscription.plan), ('charged', (subscription.state = 'active')::text)
    ) AS stated (fact, value);
