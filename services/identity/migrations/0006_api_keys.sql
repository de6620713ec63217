-- API keys: for programs, as passwords are for people. What proves one is told to nobody after its making, and every
-- service knows the rest by `access_api_key`.

CREATE TABLE api_key (
    key_id       text PRIMARY KEY,           -- a part of the key itself; no secret
    tenant_id    text NOT NULL,              -- '_' for those of operators
    name         text NOT NULL,
    role         text NOT NULL,
    scopes       text[] NOT NULL,
    secrets      jsonb NOT NULL,             -- [{"digest": SHA-256, hexadecimal, "expiresAt"}], the newest first; empty when revoked
    revision     bigint NOT NULL,            -- one more with each change
    created_by   text NOT NULL,              -- the principal's id
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz,                -- null: never
    last_used_at timestamptz,                -- as far as the services have told
    revoked_at   timestamptz,                -- the row stays, for those who ask what it was
    CHECK (role IN ('SystemAdmin', 'CustomerSupport', 'TenantAdmin', 'TenantUser')),
    CHECK ((tenant_id = '_') = (role IN ('SystemAdmin', 'CustomerSupport'))),
    CHECK (revoked_at IS NULL OR secrets = '[]')
) WITH (fillfactor = 80);

-- Keys are listed in the order of their creation, all of them or one tenant's.
CREATE INDEX api_key_created ON api_key (created_at, key_id);
CREATE INDEX api_key_tenant ON api_key (tenant_id, created_at, key_id);

-- Every place where a tenant has left something; the residue audit counts these rows.
CREATE OR REPLACE VIEW live_record AS
SELECT tenant_id, 'membership' AS place FROM membership WHERE tenant_id <> '_'
UNION ALL
SELECT tenant_id, 'invitation' FROM invitation WHERE tenant_id <> '_'
UNION ALL
SELECT tenant_id, 'tenant_block' FROM tenant_block
UNION ALL
-- Whose they were can no longer be told, so they are listed under a name that no tenant can have.
SELECT '', 'users' FROM users WHERE NOT EXISTS (SELECT FROM membership WHERE membership.user_id = users.user_id)
UNION ALL
SELECT tenant_id, 'session' FROM session WHERE tenant_id <> '_'
UNION ALL
SELECT tenant_id, 'authorization_code' FROM authorization_code WHERE tenant_id <> '_'
UNION ALL
SELECT tenant_id, 'api_key' FROM api_key WHERE tenant_id <> '_';
