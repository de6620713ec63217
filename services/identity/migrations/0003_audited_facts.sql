-- What this service states of each tenant that others state too; the residue audit compares them.
CREATE VIEW audited_fact (tenant_id, fact, value) AS
    SELECT tenant_id, 'blocked', (tenant_block.tenant_id IS NOT NULL)::text
    FROM (SELECT DISTINCT tenant_id FROM membership) AS known FULL JOIN tenant_block USING (tenant_id);
