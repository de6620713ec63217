-- Sign-in blocks, and memberships found as quickly for a user of ten thousand tenants as for a user of one.

-- Tenants into which nobody can sign in, whatever its role there. Users may still get into their other tenants.
-- There is no state between blocked and not: the row comes with the block and goes with it.
CREATE TABLE tenant_block (
    tenant_id  text PRIMARY KEY,             -- whether or not anybody is a member
    reason     text,                         -- of the first who blocked it, for those who ask
    blocked_at timestamptz NOT NULL
);

-- A user's membership in one tenant is looked up without going through all the others that it has; whoever asked the
-- narrower index is served by this one.
CREATE INDEX membership_user_tenant ON membership (user_id, tenant_id);
DROP INDEX membership_user;

-- A user as the API shows it, and as whoever lets users in has to read it: no way in where a membership is blocked.
CREATE OR REPLACE VIEW user_profile AS
SELECT users.user_id, users.email, users.created_at,
       coalesce(
           (SELECT jsonb_agg(
                jsonb_build_object('tenantId', tenant_id, 'role', role, 'blocked', tenant_block.tenant_id IS NOT NULL)
                ORDER BY tenant_id)
            FROM membership LEFT JOIN tenant_block USING (tenant_id)
            WHERE membership.user_id = users.user_id),
           '[]') AS memberships
FROM users;

-- Every place where a tenant has left something; the residue audit counts these rows.
CREATE OR REPLACE VIEW live_record AS
SELECT tenant_id, 'membership' AS place FROM membership
UNION ALL
SELECT tenant_id, 'invitation' FROM invitation
UNION ALL
SELECT tenant_id, 'tenant_block' FROM tenant_block
UNION ALL
-- Whose they were can no longer be told, so they are listed under a name that no tenant can have.
SELECT '', 'users' FROM users WHERE NOT EXISTS (SELECT FROM membership WHERE membership.user_id = users.user_id);
