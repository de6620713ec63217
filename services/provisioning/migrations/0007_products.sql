-- Environments that products have of their own, beside the one of their tenant.

-- What sets an environment apart from all others stays in tenant_id: the tenant's id, or <owner>:<product>. Code of the
-- release before, which asks for the environments of tenants by their ids, sees none of the second kind.
ALTER TABLE environment
    ADD COLUMN owner_id text,  -- the tenant whose product it is; null of a tenant's own environment
    ADD COLUMN product  text,
    ADD CHECK ((owner_id IS NULL) = (product IS NULL)),
    ADD CHECK (tenant_id = owner_id || ':' || product);

CREATE INDEX environment_owner_id ON environment (owner_id) WHERE owner_id IS NOT NULL;

-- A job goes through the environments of its tenant one after the other, and back in the opposite order.
ALTER TABLE job
    ADD COLUMN tenancy text,                         -- environment.tenant_id of the one it is at; null for the tenant's own
    ADD COLUMN asked   text,                         -- what it does as a whole; null for the same as here
    ADD COLUMN ahead   jsonb NOT NULL DEFAULT '[]',  -- what is to be done in those that follow
    ADD COLUMN behind  jsonb NOT NULL DEFAULT '[]';  -- what was done in those before, for the way back

-- The places of 0006, by the tenant whose they are; what is of a product's own environment says so.
CREATE OR REPLACE VIEW live_record AS
    SELECT coalesce(owner_id, tenant_id) AS tenant_id, 'environment' || coalesce(':' || product, '') AS place
    FROM environment
    UNION ALL
    SELECT split_part(tenant_id, ':', 1), rtrim('deployment:' || split_part(tenant_id, ':', 2), ':') FROM deployment
    UNION ALL
    SELECT tenant_id, 'job' FROM job
    UNION ALL
    SELECT split_part(tenant_id, ':', 1), rtrim('mail_sending:' || split_part(tenant_id, ':', 2), ':') FROM mail_sending
    UNION ALL
    SELECT split_part(tenant_id, ':', 1), rtrim('mail_count:' || split_part(tenant_id, ':', 2), ':') FROM mail_count;

-- As in 0003, and the same of products' environments.
CREATE OR REPLACE VIEW audited_fact (tenant_id, fact, value) AS
    SELECT coalesce(owner_id, tenant_id), stated.fact || coalesce(':' || product, ''), stated.value
    FROM environment
    CROSS JOIN LATERAL (VALUES
        (CASE WHEN product IS NULL THEN 'isolation' ELSE 'environment' END, isolation),
        ('throttled', (throttled_at IS NOT NULL)::text)
    ) AS stated (fact, value);
