-- Where the people of a tenant prove who they are, if not with a password of ours. A session belongs to a realm: '' for our
-- passwords, else the tenant whose provider has recognised the user; it is good nowhere else, whatever the user is there.

CREATE TABLE identity_provider (
    tenant_id     text PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('oidc', 'cognito')),
    is_required   boolean NOT NULL,          -- nobody gets in with a password of ours
    admits        text NOT NULL CHECK (admits IN ('members', 'everyone')),  -- of whom it recognises
    issuer        text,                      -- oidc: as the provider writes it
    client_id     text,                      -- oidc: what we are there
    client_secret bytea,                     -- oidc: encrypted with TENURE_IDENTITY_ENCRYPTION_KEYS
    pool          text CHECK (pool IN ('shared', 'own')),  -- cognito
    changed_at    timestamptz NOT NULL,
    CHECK ((kind = 'oidc') = (issuer IS NOT NULL AND client_id IS NOT NULL AND client_secret IS NOT NULL)),
    CHECK ((kind = 'cognito') = (pool IS NOT NULL))
);

CREATE INDEX identity_provider_oidc ON identity_provider (tenant_id) WHERE kind = 'oidc';
CREATE INDEX identity_provider_own_pool ON identity_provider (tenant_id) WHERE pool = 'own';

-- Whose addresses a tenant's own provider may vouch for. An operator has seen that the domain is the tenant's.
CREATE TABLE identity_provider_domain (
    domain    text PRIMARY KEY,              -- in lower case, as DNS has it (IDNA)
    tenant_id text NOT NULL REFERENCES identity_provider ON DELETE CASCADE
);

CREATE INDEX identity_provider_domain_tenant ON identity_provider_domain (tenant_id);

-- Who a member is at its tenant's provider. An account in Cognito is ours to keep: its row is there before it and outlives
-- it, so that none is left behind. With the membership goes member_id, and whoever sees that deletes the account, then the row.
CREATE TABLE provider_account (
    tenant_id       text NOT NULL,
    user_id         uuid NOT NULL,
    member_id       uuid CHECK (member_id = user_id),      -- null when the user is no member any more
    kind            text NOT NULL CHECK (kind IN ('oidc', 'cognito')),
    subject         text NOT NULL,           -- the provider's name for it; in Cognito ours, of which its name there is made
    linked_at       timestamptz NOT NULL,    -- when it came from there last, or was given an account last
    is_deleting     boolean NOT NULL DEFAULT false,        -- the account may be gone already; there is no way back
    attempts        integer NOT NULL DEFAULT 0,            -- at deleting it
    next_attempt_at timestamptz NOT NULL DEFAULT 'epoch',
    PRIMARY KEY (tenant_id, user_id),
    UNIQUE (tenant_id, subject),
    FOREIGN KEY (tenant_id, member_id) REFERENCES membership (tenant_id, user_id) ON DELETE SET NULL (member_id)
);

CREATE INDEX provider_account_member ON provider_account (tenant_id, member_id);
CREATE INDEX provider_account_left ON provider_account (next_attempt_at) WHERE member_id IS NULL;

-- Cognito's pool of a tenant that has one of its own. The row is there before the pool and outlives it, likewise.
CREATE TABLE provider_pool (
    tenant_id       text PRIMARY KEY,
    pool_id         text,                    -- null until it is made
    client_id       text,                    -- what we are there
    is_begun        boolean NOT NULL DEFAULT false,        -- it may have been made, under the tenant's name
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT 'epoch',
    CHECK ((pool_id IS NULL) = (client_id IS NULL))
);

ALTER TABLE session ADD COLUMN realm text NOT NULL DEFAULT '';
ALTER TABLE authorization_code ADD COLUMN realm text NOT NULL DEFAULT '';

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
SELECT tenant_id, 'api_key' FROM api_key WHERE tenant_id <> '_'
UNION ALL
SELECT tenant_id, 'tenant_plan' FROM tenant_plan
UNION ALL
SELECT tenant_id, 'usage_day' FROM usage_day
UNION ALL
SELECT tenant_id, 'identity_provider' FROM identity_provider
UNION ALL
SELECT tenant_id, 'identity_provider_domain' FROM identity_provider_domain
UNION ALL
SELECT tenant_id, 'provider_account' FROM provider_account
UNION ALL
SELECT tenant_id, 'provider_pool' FROM provider_pool;
