-- Signing in: passwords, the applications that send people here, sessions, and the keys that tokens are signed with.
-- Operators are members of the installation, whose place in the column of tenants is '_': see shared/contracts/base.py.

-- A user without a row has no password and gets in by none.
CREATE TABLE password (
    user_id    uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    hash       text NOT NULL,                -- argon2id, parameters and salt included (PHC string format)
    changed_at timestamptz NOT NULL
);

-- What slows guessing down: attempts that have not been followed by a success, of whatever is guessed at or from. Whether
-- there is such a user makes no difference, so that nobody learns it here.
CREATE TABLE throttle (
    subject      text PRIMARY KEY,
    attempts     integer NOT NULL,
    attempted_at timestamptz NOT NULL,       -- the last one that was let through
    closed_until timestamptz NOT NULL        -- nobody is let through before
) WITH (fillfactor = 80);

CREATE INDEX throttle_age ON throttle (attempted_at);

-- Applications that may send people here to sign in. All are public clients (RFC 6749, 2.1): PKCE proves them, not a secret.
CREATE TABLE oauth_client (
    client_id     text PRIMARY KEY,
    name          text NOT NULL,
    redirect_uris text[] NOT NULL,           -- compared as they are written (RFC 9700, 2.1)
    created_at    timestamptz NOT NULL
);

-- One sign-in of one user, in one tenant at a time. It ends when the row is deleted.
CREATE TABLE session (
    session_id   uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    tenant_id    text NOT NULL,              -- '_' for operators
    client_id    text NOT NULL,
    scope        text NOT NULL,
    reason       text,                       -- why an operator acts in the tenant; such a session is not refreshed
    address      text,                       -- where it began
    agent        text,
    created_at   timestamptz NOT NULL,
    refreshed_at timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL
) WITH (fillfactor = 80);

CREATE INDEX session_user_id ON session (user_id, session_id);
CREATE INDEX session_tenant ON session (tenant_id, session_id);
CREATE INDEX session_expiry ON session (expires_at);

-- Each is good once. One that comes back was stolen or copied, and ends the session (RFC 9700, 4.14.2).
CREATE TABLE refresh_token (
    digest     bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    session_id uuid NOT NULL REFERENCES session ON DELETE CASCADE,
    used_at    timestamptz
);

CREATE INDEX refresh_token_session ON refresh_token (session_id);

-- What somebody who has proven who it is takes back to the application, good once and for a minute.
CREATE TABLE authorization_code (
    digest         bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    client_id      text NOT NULL,
    redirect_uri   text NOT NULL,
    code_challenge text NOT NULL,
    user_id        uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    tenant_id      text NOT NULL,
    scope          text NOT NULL,
    nonce          text,                     -- goes into the ID token
    address        text,
    agent          text,
    expires_at     timestamptz NOT NULL,
    session_id     uuid                      -- that it was exchanged for; a second exchange ends it
);

CREATE INDEX authorization_code_expiry ON authorization_code (expires_at);
CREATE INDEX authorization_code_tenant ON authorization_code (tenant_id);
CREATE INDEX authorization_code_user ON authorization_code (user_id);

-- Keys for signing access tokens. At any time the active one is the newest whose time has come; the next one is
-- published long before it is used, and each is known for as long as a token that it has signed is good.
CREATE TABLE signing_key (
    key_id      text PRIMARY KEY,
    private_key bytea NOT NULL,              -- a JWK, encrypted with TENURE_IDENTITY_ENCRYPTION_KEYS
    public_key  jsonb NOT NULL,
    active_at   timestamptz NOT NULL,        -- signs from then on
    retired_at  timestamptz NOT NULL,        -- signs no more from then on
    expires_at  timestamptz NOT NULL         -- nothing that it has signed is good any more
);

-- Members of a tenant are listed and found with what they are there; operators have their own place.
CREATE OR REPLACE VIEW user_profile AS
SELECT users.user_id, users.email, users.created_at,
       coalesce(
           (SELECT jsonb_agg(
                jsonb_build_object('tenantId', tenant_id, 'role', role, 'blocked', tenant_block.tenant_id IS NOT NULL)
                ORDER BY tenant_id)
            FROM membership LEFT JOIN tenant_block USING (tenant_id)
            WHERE membership.user_id = users.user_id AND tenant_id <> '_'),
           '[]') AS memberships,
       (SELECT role FROM membership WHERE membership.user_id = users.user_id AND tenant_id = '_') AS operator_role
FROM users;

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
SELECT tenant_id, 'authorization_code' FROM authorization_code WHERE tenant_id <> '_';

-- What this service states of each tenant that others state too; the residue audit compares them.
CREATE OR REPLACE VIEW audited_fact (tenant_id, fact, value) AS
    SELECT tenant_id, 'blocked', (tenant_block.tenant_id IS NOT NULL)::text
    FROM (SELECT DISTINCT tenant_id FROM membership WHERE tenant_id <> '_') AS known
    FULL JOIN tenant_block USING (tenant_id);
