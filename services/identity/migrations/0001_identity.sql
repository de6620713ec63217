-- People, what they may do in which tenant, and the invitations that bring them in.

-- One person, one row, however many tenants it belongs to. Plural, because USER is a word of SQL.
CREATE TABLE users (
    user_id    uuid PRIMARY KEY,
    email      text NOT NULL,                -- as it was first written; where mail goes
    email_key  text NOT NULL UNIQUE CHECK (email_key <> ''),  -- what two spellings of one address have in common
    created_at timestamptz NOT NULL
) WITH (fillfactor = 90);

-- What a user may do in a tenant. A user without any is deleted together with its last one.
CREATE TABLE membership (
    tenant_id  text NOT NULL,
    user_id    uuid NOT NULL REFERENCES users,
    role       text NOT NULL CHECK (role IN ('SystemAdmin', 'CustomerSupport', 'TenantAdmin', 'TenantUser')),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, user_id)
);

CREATE INDEX membership_user ON membership (user_id);

-- The way a member gets in for the first time: at most one per membership. Its status follows from its times:
--   open      neither accepted nor past its expiry; the token, once sent, lets its bearer in
--   accepted  accepted_at is set; final, the token is worth nothing any more
--   expired   not accepted by expires_at; asking for the same administrator again renews it with a new token
-- It is deleted together with the membership. Delivery is a matter of its own:
--   pending   the mail has to be sent
--   sent      the mail server has taken it
CREATE TABLE invitation (
    invitation_id uuid PRIMARY KEY,
    tenant_id     text NOT NULL,
    user_id       uuid NOT NULL,
    role          text NOT NULL CHECK (role IN ('SystemAdmin', 'CustomerSupport', 'TenantAdmin', 'TenantUser')),
    token_hash    bytea NOT NULL CHECK (octet_length(token_hash) = 32),  -- SHA-256; the token itself is kept nowhere
    delivery      text NOT NULL DEFAULT 'pending' CHECK (delivery IN ('pending', 'sent')),
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL CHECK (expires_at > created_at),
    accepted_at   timestamptz,
    UNIQUE (tenant_id, user_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES membership
);

-- A tenant's invitations are listed in the order of their creation.
CREATE INDEX invitation_tenant ON invitation (tenant_id, invitation_id);

-- A user as the API shows it.
CREATE VIEW user_profile AS
SELECT users.user_id, users.email, users.created_at,
       coalesce(
           (SELECT jsonb_agg(jsonb_build_object('tenantId', tenant_id, 'role', role) ORDER BY tenant_id)
            FROM membership WHERE membership.user_id = users.user_id),
           '[]') AS memberships
FROM users;

-- An invitation as the API shows it; never with its token's hash. Whether it has expired is the reader's clock's to say.
CREATE VIEW invitation_profile AS
SELECT invitation_id, tenant_id, users.email, role, delivery, invitation.created_at, expires_at, accepted_at
FROM invitation JOIN users USING (user_id);

-- Every place where a tenant has left something; the residue audit counts these rows.
CREATE VIEW live_record AS
SELECT tenant_id, 'membership' AS place FROM membership
UNION ALL
SELECT tenant_id, 'invitation' FROM invitation
UNION ALL
-- Whose they were can no longer be told, so they are listed under a name that no tenant can have.
SELECT '', 'users' FROM users WHERE NOT EXISTS (SELECT FROM membership WHERE membership.user_id = users.user_id);
