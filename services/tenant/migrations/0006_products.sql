-- What a product says for billing and provisioning, and what stays with a tenant of each product that it has.
-- Code of the release before runs on this schema too: every new column fills itself.

-- No column of this table may be called `version`: the code before joins it with one that has such a column.
ALTER TABLE product
    ADD COLUMN plan       text CHECK (plan ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),    -- null: the tier's covers it
    ADD COLUMN isolation  text CHECK (isolation IN ('pool', 'bridge', 'silo')), -- null: it runs beside others
    ADD COLUMN driver     text NOT NULL DEFAULT 'postgres' CHECK (driver ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    ADD COLUMN region     text CHECK (region ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),  -- null: the installation's default
    ADD COLUMN parameters jsonb NOT NULL DEFAULT '{}'                           -- for the driver
               CHECK (jsonb_typeof(parameters) = 'object' AND octet_length(parameters::text) <= 16384);

-- What a product means to the other services.
CREATE FUNCTION meaning(product) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'plan', $1.plan, 'isolation', $1.isolation,
        'driver', $1.driver, 'region', $1.region, 'parameters', $1.parameters
    )
$$;

-- A tenant keeps what a product meant when it took it, for as long as it has it, in whichever version. Until now all
-- products have meant the same, so the rows that are there need not be written.
ALTER TABLE tenant_product ADD COLUMN meaning jsonb NOT NULL
    DEFAULT '{"plan": null, "isolation": null, "driver": "postgres", "region": null, "parameters": {}}';
ALTER TABLE tenant_product ALTER COLUMN meaning DROP DEFAULT;

-- Where it is not said what a product means to a tenant, as by code of the release before, it is what that means now.
CREATE FUNCTION keep_product_meaning() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT meaning(given) INTO NEW.meaning FROM product AS given WHERE given.name = NEW.product;
    RETURN NEW;
END $$;

CREATE TRIGGER tenant_product_meaning BEFORE INSERT ON tenant_product
    FOR EACH ROW WHEN (NEW.meaning IS NULL) EXECUTE FUNCTION keep_product_meaning();

-- What workflows change of a tenant, as in 0005, with what its products mean to it. They stand beside the products: the
-- code before compares `products` as a whole with what it has made of them.
CREATE OR REPLACE VIEW tenant_terms AS
    SELECT tenant_id, state,
           jsonb_build_object(
               'state', state, 'tier', tier, 'tier_meaning', tier_meaning, 'customer_name', customer_name,
               'name_key', name_key, 'expiration', expiration,
               'products', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', product, 'version', version)
                                                      ORDER BY product COLLATE "C"), '[]')  -- as Python sorts them
                            FROM tenant_product WHERE tenant_product.tenant_id = tenant.tenant_id),
               'product_meanings', (SELECT coalesce(jsonb_object_agg(product, meaning), '{}')
                                    FROM tenant_product WHERE tenant_product.tenant_id = tenant.tenant_id)
           ) AS terms,
           version
    FROM tenant;

-- What this service states of each tenant that others state too, as in 0005, and of each of its products the plan of its
-- licence and the isolation of its environment, where it has one of its own.
CREATE OR REPLACE VIEW audited_fact (tenant_id, fact, value) AS
    SELECT tenant.tenant_id, stated.fact, stated.value
    FROM tenant
    CROSS JOIN LATERAL (VALUES
        ('state', tenant.state), ('plan', tier_meaning ->> 'plan'), ('isolation', tier_meaning ->> 'isolation'),
        ('quotas', (tier_meaning -> 'quotas')::text)
    ) AS stated (fact, value)
    WHERE tenant.state <> 'archived'
    UNION ALL
    SELECT tenant_id, stated.fact || product, stated.value
    FROM tenant_product
    CROSS JOIN LATERAL (VALUES
        ('licence:', meaning ->> 'plan'), ('environment:', meaning ->> 'isolation')
    ) AS stated (fact, value)
    WHERE stated.value IS NOT NULL;
