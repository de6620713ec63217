-- The catalog: what a customer can take. Entries are retired, never deleted, because tenants keep pointing at them.

CREATE TABLE tier (
    name        text PRIMARY KEY,
    rank        integer NOT NULL UNIQUE CHECK (rank > 0),  -- from the smallest to the largest
    plan        text NOT NULL,                -- the name of a plan in billing's catalog
    quotas      jsonb NOT NULL,               -- meter name to limit per calendar month
    isolation   text NOT NULL CHECK (isolation IN ('pool', 'bridge', 'silo')),
    is_default  boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL DEFAULT now(),
    retired_at  timestamptz,                  -- cannot be taken from then on; who has it keeps it
    CHECK (jsonb_typeof(quotas) = 'object'),
    CONSTRAINT a_default_tier_can_be_taken CHECK (NOT is_default OR retired_at IS NULL)
);

CREATE UNIQUE INDEX one_default_tier ON tier (is_default) WHERE is_default;

CREATE TABLE product (
    name        text PRIMARY KEY,
    description text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    retired_at  timestamptz
);

CREATE TABLE product_version (
    product     text NOT NULL REFERENCES product,
    version     text NOT NULL,
    number      bigint GENERATED ALWAYS AS IDENTITY,  -- the order of publication, whatever the versions are called
    created_at  timestamptz NOT NULL DEFAULT now(),
    retired_at  timestamptz,
    PRIMARY KEY (product, version),
    UNIQUE (product, number)
);

-- What can be taken today: neither the version nor its product is retired.
CREATE VIEW offered_version AS
    SELECT product_version.product, product_version.version, product_version.number
    FROM product_version
    JOIN product ON product.name = product_version.product
    WHERE product.retired_at IS NULL AND product_version.retired_at IS NULL;

INSERT INTO tier (name, rank, plan, quotas, isolation, is_default) VALUES
    ('free',     1, 'free',     '{"api_calls": 10000,   "storage_gb": 1,   "seats": 3}',   'pool', true),
    ('standard', 2, 'standard', '{"api_calls": 100000,  "storage_gb": 10,  "seats": 25}',  'pool', false),
    ('premium',  3, 'premium',  '{"api_calls": 1000000, "storage_gb": 100, "seats": 250}', 'pool', false);

INSERT INTO product (name, description) VALUES ('notes', 'A sample product: shared notes.');
INSERT INTO product_version (product, version) VALUES ('notes', '1.0'), ('notes', '2.0');

-- The catalog's revision grows with every change, so that whoever keeps a copy can tell the newer from the older.
-- Its one row also puts concurrent changes in order: the second waits, then publishes what both made of it.
CREATE TABLE catalog (
    single   boolean PRIMARY KEY DEFAULT true CHECK (single),
    revision bigint NOT NULL
);

INSERT INTO catalog (revision) VALUES (1);

CREATE FUNCTION advance_catalog_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE catalog SET revision = revision + 1;
    RETURN NULL;
END $$;

CREATE TRIGGER tier_changes_the_catalog AFTER INSERT OR UPDATE OR DELETE ON tier
    FOR EACH STATEMENT EXECUTE FUNCTION advance_catalog_revision();
CREATE TRIGGER product_changes_the_catalog AFTER INSERT OR UPDATE OR DELETE ON product
    FOR EACH STATEMENT EXECUTE FUNCTION advance_catalog_revision();
CREATE TRIGGER product_version_changes_the_catalog AFTER INSERT OR UPDATE OR DELETE ON product_version
    FOR EACH STATEMENT EXECUTE FUNCTION advance_catalog_revision();

-- The tenants. The states, and the ways between them (the same table in lifecycle.py, a test compares both):
--
--   registered   on record, its name is taken; other services are still at work for it
--   active       open for business
--   suspended    nobody signs in, nothing is charged, everything is kept
--   offboarding  on its way out; can still be taken back
--   archived     final: what remains when everything else is deleted; its name is free again
--
--   registered  -> active                 activate
--   active      -> registered             the activation is taken back
--   active      -> suspended              suspend
--   suspended   -> active                 reactivate
--   active      -> offboarding            off-board
--   suspended   -> offboarding            off-board
--   offboarding -> active, suspended      the off-boarding is taken back
--   offboarding -> archived               archive
--
-- A registration is taken back by deleting the row.
CREATE TABLE tenant (
    tenant_id     text PRIMARY KEY,           -- made by onboarding; its order is the order of creation
    customer_name text NOT NULL,              -- as it was typed
    name_key      text NOT NULL,              -- as it is compared: shared.text.name_key
    tier          text NOT NULL REFERENCES tier,
    state         text NOT NULL DEFAULT 'registered'
                  CHECK (state IN ('registered', 'active', 'suspended', 'offboarding', 'archived')),
    email         text NOT NULL,
    phone         text,
    address       text,
    region        text,
    expiration    date,                       -- the last day of the contract
    tags          jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(tags) = 'object'),
    attributes    jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(attributes) = 'object'),
    version       bigint NOT NULL DEFAULT 1,  -- grows with every change: the HTTP entity tag
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL
) WITH (fillfactor = 80);                     -- every tenant changes at least once, at its activation

-- A customer has one tenant; the name of an archived one can be taken again.
CREATE UNIQUE INDEX tenant_name ON tenant (name_key) WHERE state <> 'archived';

CREATE FUNCTION refuse_forbidden_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.state, NEW.state) NOT IN (
        ('registered', 'active'), ('active', 'registered'),
        ('active', 'suspended'), ('suspended', 'active'),
        ('active', 'offboarding'), ('suspended', 'offboarding'),
        ('offboarding', 'active'), ('offboarding', 'suspended'),
        ('offboarding', 'archived')
    ) THEN
        RAISE EXCEPTION 'tenant %: no way leads from % to %', OLD.tenant_id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'tenant_transition';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER tenant_transition BEFORE UPDATE OF state ON tenant
    FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION refuse_forbidden_transition();

-- What a tenant has taken: each product at one version.
CREATE TABLE tenant_product (
    tenant_id text NOT NULL REFERENCES tenant ON DELETE CASCADE,
    product   text NOT NULL,
    version   text NOT NULL,
    PRIMARY KEY (tenant_id, product),
    FOREIGN KEY (product, version) REFERENCES product_version
);

-- Every place where a tenant that is not gone has left something; the residue audit counts these rows.
CREATE VIEW live_record (tenant_id, place) AS
    SELECT tenant_id, 'tenant' FROM tenant WHERE state <> 'archived'
    UNION ALL
    SELECT tenant_id, 'tenant_product' FROM tenant_product JOIN tenant USING (tenant_id) WHERE state <> 'archived';
