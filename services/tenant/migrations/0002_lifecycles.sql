-- Every lifecycle beyond onboarding. The states and the ways between them are those of 0001: taking a suspension back is
-- the way of a reactivation, and the other way round; an off-boarding that finds a tenant on its way out leaves it there.
-- Code of the release before runs on this schema too: it writes no column that is new, and archives nobody.

-- How many database connections each login of a tenant's environment may hold; null is provisioning's default.
ALTER TABLE tier ADD COLUMN connections integer CHECK (connections > 0);

UPDATE tier SET connections = seeded.connections
FROM (VALUES ('free', 2), ('standard', 10), ('premium', 50)) AS seeded (name, connections)
WHERE tier.name = seeded.name;

-- The archive record: whoever was called what, on which tier, from when to when; nothing of a person.
-- Not valid for rows that are older, so that the table is not read while it is locked; there are none such.
ALTER TABLE tenant ALTER COLUMN email DROP NOT NULL;
ALTER TABLE tenant ADD CONSTRAINT tenant_erased_when_archived CHECK (
    CASE WHEN state = 'archived'
         THEN email IS NULL AND phone IS NULL AND address IS NULL AND tags = '{}' AND attributes = '{}'
         ELSE email IS NOT NULL
    END
) NOT VALID;

-- What workflows change of a tenant, as one JSON object: before-images are parts of it, so undoing writes them back.
CREATE VIEW tenant_terms AS
    SELECT tenant_id, state,
           jsonb_build_object(
               'state', state, 'tier', tier, 'customer_name', customer_name, 'name_key', name_key,
               'expiration', expiration,
               'products', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', product, 'version', version)
                                                      ORDER BY product COLLATE "C"), '[]')  -- as Python sorts them
                            FROM tenant_product WHERE tenant_product.tenant_id = tenant.tenant_id)
           ) AS terms
    FROM tenant;

-- What was deleted of a tenant that was archived: kept for good, and never changed.
CREATE TABLE certificate (
    tenant_id   text PRIMARY KEY REFERENCES tenant,
    workflow_id text NOT NULL,                -- of the off-boarding
    content     jsonb NOT NULL CHECK (jsonb_typeof(content) = 'object'),
    sha256      text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),  -- of the content in its canonical form: certificates.py
    issued_at   timestamptz NOT NULL
);

-- What stays of an archived tenant, its record and its certificate, is not live. Products are, whatever its state:
-- those that an archived one still had would be residue.
CREATE OR REPLACE VIEW live_record (tenant_id, place) AS
    SELECT tenant_id, 'tenant' FROM tenant WHERE state <> 'archived'
    UNION ALL
    SELECT tenant_id, 'tenant_product' FROM tenant_product;
