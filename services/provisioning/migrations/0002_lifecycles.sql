-- What an environment can be made after it was provisioned: moved, throttled, exported.

ALTER TABLE environment
    ADD COLUMN connections     integer CHECK (connections > 0),  -- that each login may hold; null: the driver's default
    -- Orthogonal to the state, so that whoever knows the one state only still reads every row:
    --   open       throttled_at is null: logins are issued             -> throttled
    --   throttled  nobody works in it and no login is issued           -> open
    ADD COLUMN throttled_at    timestamptz,
    ADD COLUMN throttle_reason text,
    ADD CHECK (throttled_at IS NOT NULL OR throttle_reason IS NULL);

-- Everything that a tenant kept in its environment at one moment; it outlives the environment and goes when it expires.
CREATE TABLE export (
    export_id  uuid PRIMARY KEY,
    tenant_id  text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    rows       jsonb NOT NULL,                               -- how many, by table
    bytes      bigint NOT NULL CHECK (bytes > 0),            -- of all its chunks
    sha256     text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$')  -- of all its chunks, one after the other
);

CREATE INDEX export_tenant_id ON export (tenant_id);
CREATE INDEX export_expires_at ON export (expires_at);

-- The parts of the gzipped stream, in the database because every replica must be able to serve them.
CREATE TABLE export_chunk (
    -- Deferred, because what is said of an export is known when its last chunk is there.
    export_id uuid REFERENCES export ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    number    integer CHECK (number >= 0),
    content   bytea NOT NULL CHECK (octet_length(content) BETWEEN 1 AND 1048576),
    PRIMARY KEY (export_id, number)
);

ALTER TABLE export_chunk ALTER COLUMN content SET STORAGE EXTERNAL;  -- it is compressed already

-- The same places as before. An export is no residue: it is what a tenant that was off-boarded may still fetch, and it
-- is deleted when it expires.
CREATE OR REPLACE VIEW live_record AS
    SELECT tenant_id, 'environment' AS place FROM environment
    UNION ALL
    SELECT tenant_id, 'deployment' FROM deployment;
