-- A catalog that is changed over HTTP, what its tiers say for provisioning, and what stays with a tenant of its tier.
-- Code of the release before runs on this schema too: every new column fills itself.

-- No column of either table may be called `version`: the code before joins both with tables that have one.
ALTER TABLE tier
    ADD COLUMN driver     text NOT NULL DEFAULT 'postgres' CHECK (driver ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    ADD COLUMN region     text CHECK (region ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),  -- null: the installation's default
    ADD COLUMN parameters jsonb NOT NULL DEFAULT '{}'                            -- for the driver
               CHECK (jsonb_typeof(parameters) = 'object' AND octet_length(parameters::text) <= 16384),
    ADD COLUMN edition    bigint NOT NULL DEFAULT 1;                             -- of the entry: the HTTP entity tag

ALTER TABLE product ADD COLUMN edition bigint NOT NULL DEFAULT 1;                -- likewise, its versions included

-- On a new installation tiers are isolated as much as one expects of them. One that has tenants keeps its catalog as it
-- is: while it is upgraded, provisioning's code of the release before may be asked, and that makes nothing but pools.
UPDATE tier SET isolation = seeded.isolation
FROM (VALUES ('standard', 'bridge'), ('premium', 'silo')) AS seeded (name, isolation)
WHERE tier.name = seeded.name AND NOT EXISTS (SELECT FROM tenant);

-- What a tier means to the other services.
CREATE FUNCTION meaning(tier) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'tier', $1.name, 'plan', $1.plan, 'quotas', $1.quotas,
        'isolation', $1.isolation, 'connections', $1.connections,
        'requests_per_second', $1.requests_per_second, 'requests_per_day', $1.requests_per_day,
        'driver', $1.driver, 'region', $1.region, 'parameters', $1.parameters
    )
$$;

-- A tenant keeps what its tier meant when it was put on it, whatever becomes of the catalog.
ALTER TABLE tenant ADD COLUMN tier_meaning jsonb;

UPDATE tenant SET tier_meaning = meaning(given) FROM tier AS given WHERE given.name = tenant.tier;

ALTER TABLE tenant
    ALTER COLUMN tier_meaning SET NOT NULL,
    ADD CONSTRAINT tenant_has_the_meaning_of_its_tier CHECK (tier_meaning ->> 'tier' = tier);

-- Where it is not said what a tier means to a tenant, as by code of the release before, it is what the tier means now.
CREATE FUNCTION keep_tier_meaning() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT meaning(given) INTO NEW.tier_meaning FROM tier AS given WHERE given.name = NEW.tier;
    RETURN NEW;
END $$;

CREATE TRIGGER tenant_tier_meaning BEFORE INSERT OR UPDATE OF tier, tier_meaning ON tenant
    FOR EACH ROW WHEN (NEW.tier_meaning ->> 'tier' IS DISTINCT FROM NEW.tier) EXECUTE FUNCTION keep_tier_meaning();

-- What workflows change of a tenant, as in 0004, with what its tier means to it.
CREATE OR REPLACE VIEW tenant_terms AS
    SELECT tenant_id, state,
           jsonb_build_object(
               'state', state, 'tier', tier, 'tier_meaning', tier_meaning, 'customer_name', customer_name,
               'name_key', name_key, 'expiration', expiration,
               'products', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', product, 'version', version)
                                                      ORDER BY product COLLATE "C"), '[]')  -- as Python sorts them
                            FROM tenant_product WHERE tenant_product.tenant_id = tenant.tenant_id)
           ) AS terms,
           version
    FROM tenant;

-- What this service states of each tenant that others state too, as in 0003, but what the tenant was given of its tier.
CREATE OR REPLACE VIEW audited_fact (tenant_id, fact, value) AS
    SELECT tenant.tenant_id, stated.fact, stated.value
    FROM tenant
    CROSS JOIN LATERAL (VALUES
        ('state', tenant.state), ('plan', tier_meaning ->> 'plan'), ('isolation', tier_meaning ->> 'isolation'),
        ('quotas', (tier_meaning -> 'quotas')::text)
    ) AS stated (fact, value)
    WHERE tenant.state <> 'archived';
