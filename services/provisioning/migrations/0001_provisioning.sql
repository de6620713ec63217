-- Where each tenant's application runs, and what runs there. What an environment consists of is its driver's business.

CREATE TABLE environment (
    environment_id uuid PRIMARY KEY,
    tenant_id      text NOT NULL UNIQUE,
    isolation      text NOT NULL CHECK (isolation IN ('pool')),     -- what was made, not what was asked for
    region         text NOT NULL,
    -- A pool environment is made and removed within one transaction, so it has one state:
    --   ready  the application works in it and logins can be issued; final
    state          text NOT NULL DEFAULT 'ready' CHECK (state IN ('ready')),
    created_at     timestamptz NOT NULL
);

-- The version of each product that the tenant uses.
CREATE TABLE deployment (
    tenant_id text NOT NULL REFERENCES environment (tenant_id) ON DELETE CASCADE,
    product   text NOT NULL,
    version   text NOT NULL,
    PRIMARY KEY (tenant_id, product)
);

-- Every place where a tenant has left something in this database; the residue audit counts these rows.
-- The application database has a view of the same shape, tenancy.live_record.
CREATE VIEW live_record AS
    SELECT tenant_id, 'environment' AS place FROM environment
    UNION ALL
    SELECT tenant_id, 'deployment' FROM deployment;
