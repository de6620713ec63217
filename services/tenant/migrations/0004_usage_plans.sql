-- How much a tenant's own users may ask of an application, by its tier; identity counts and keeps to it.
-- Code of the release before runs on this schema too: it neither writes the new columns nor reads the view's new one.

ALTER TABLE tier
    ADD COLUMN requests_per_second integer CHECK (requests_per_second > 0),  -- null: as many as they like
    ADD COLUMN requests_per_day    bigint CHECK (requests_per_day > 0);      -- likewise; a day of UTC

UPDATE tier SET requests_per_second = seeded.per_second, requests_per_day = seeded.per_day
FROM (VALUES ('free', 10, 10000), ('standard', 50, 200000), ('premium', 500, NULL)) AS seeded (name, per_second, per_day)
WHERE tier.name = seeded.name;

-- What workflows change of a tenant, as in 0002, with the version that puts the changes in order.
CREATE OR REPLACE VIEW tenant_terms AS
    SELECT tenant_id, state,
           jsonb_build_object(
               'state', state, 'tier', tier, 'customer_name', customer_name, 'name_key', name_key,
               'expiration', expiration,
               'products', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', product, 'version', version)
                                                      ORDER BY product COLLATE "C"), '[]')  -- as Python sorts them
                            FROM tenant_product WHERE tenant_product.tenant_id = tenant.tenant_id)
           ) AS terms,
           version
    FROM tenant;
