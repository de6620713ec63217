-- What every service knows of identity, told by its facts, so that it can tell who asks while identity is away. A row
-- with a `forget_at` is kept until then for what may still be under way, and belongs to nobody any more.

-- The public keys that access tokens are signed with.
CREATE TABLE access_signing_key (
    key_id     text PRIMARY KEY,
    public_key jsonb NOT NULL,               -- a JWK (RFC 7517)
    forget_at  timestamptz NOT NULL          -- no token that it signed is good any more
);

-- Tenants whose tokens were revoked, or whose users and keys are kept out. A tenant without a row has epoch 0.
CREATE TABLE access_tenant (
    tenant_id  text PRIMARY KEY,
    epoch      bigint NOT NULL,              -- tokens of an earlier one are void
    is_blocked boolean NOT NULL,
    forget_at  timestamptz                   -- the tenant was purged
);

-- Sessions that were revoked; an entry outlives every access token of the session.
CREATE TABLE access_revoked_session (
    session_id text PRIMARY KEY,
    forget_at  timestamptz NOT NULL
);

-- API keys, by what their holders cannot be told from.
CREATE TABLE access_api_key (
    key_id     text PRIMARY KEY,
    tenant_id  text,                         -- null for those of operators
    revision   bigint NOT NULL,              -- an older state of the key never replaces a newer one
    role       text NOT NULL,
    scopes     text[] NOT NULL,
    secrets    jsonb NOT NULL,               -- [{"digest": SHA-256, hexadecimal, "expiresAt"}], more than one while rotating
    forget_at  timestamptz                   -- the key was revoked or its tenant purged
);

CREATE INDEX access_api_key_tenant ON access_api_key (tenant_id);
CREATE INDEX access_tenant_forgotten ON access_tenant (forget_at) WHERE forget_at IS NOT NULL;
CREATE INDEX access_revoked_session_forgotten ON access_revoked_session (forget_at);
CREATE INDEX access_api_key_forgotten ON access_api_key (forget_at) WHERE forget_at IS NOT NULL;
