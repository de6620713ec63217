-- What can be metered, which tenants are metered, and how much of it they may use.

-- The catalog of what can be metered.
CREATE TABLE meter (
    name        text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,63}$'),
    unit        text NOT NULL,
    -- What a limit on this meter means, unless a tenant's quota says otherwise:
    --   soft  usage beyond it is accepted and reported
    --   hard  usage beyond it is denied
    enforcement text NOT NULL CHECK (enforcement IN ('soft', 'hard'))
);

INSERT INTO meter (name, unit, enforcement) VALUES
    ('api_calls', 'call', 'soft'),
    ('storage_gb', 'GB', 'soft'),
    ('seats', 'seat', 'hard');

-- The tenants whose usage is accepted. There is no state between tracked and forgotten.
CREATE TABLE tracked_tenant (
    tenant_id  text PRIMARY KEY,
    tracked_at timestamptz NOT NULL
);

-- How much of a meter a tenant may use in a calendar month. No row: as much as it likes.
CREATE TABLE quota (
    tenant_id   text NOT NULL REFERENCES tracked_tenant,
    meter       text NOT NULL REFERENCES meter,
    limit_value bigint NOT NULL CHECK (limit_value >= 0),  -- in the meter's unit
    enforcement text NOT NULL CHECK (enforcement IN ('soft', 'hard')),
    PRIMARY KEY (tenant_id, meter)
);

-- Every place where a tenant has left something; the residue audit counts these rows.
CREATE VIEW live_record AS
SELECT tenant_id, 'tracked_tenant' AS place FROM tracked_tenant
UNION ALL
SELECT tenant_id, 'quota' FROM quota;
