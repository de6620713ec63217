-- Invitations go out by mail, and people have a name.

-- What a person wants to be called; counted up with each change, so that none overwrites another unseen.
ALTER TABLE users
    ADD COLUMN name text CHECK (name <> ''),
    ADD COLUMN version integer NOT NULL DEFAULT 1;

-- Delivery of an invitation, from here on:
--   pending  the mail has to be sent, not before `next_attempt_at`; whoever sends it moves that on first, as a lease
--   sent     the mail server has taken it
--   failed   it was given up, or expired before it could be sent; final until somebody has it sent again
-- A token is made with each mail and only its hash is kept, so each mail makes the one before worthless.
ALTER TABLE invitation
    ADD COLUMN customer_name   text,                        -- whom the mail says it comes from; null where nobody said
    ADD COLUMN invited_by      text,                        -- a principal's id; null for a workflow
    ADD COLUMN attempts        integer NOT NULL DEFAULT 0,  -- how often sending was begun since it was last asked for
    ADD COLUMN next_attempt_at timestamptz NOT NULL DEFAULT 'epoch',
    DROP CONSTRAINT invitation_delivery_check,
    ADD CONSTRAINT invitation_delivery_check CHECK (delivery IN ('pending', 'sent', 'failed'));

-- What is due to be sent, the first due first.
CREATE INDEX invitation_due ON invitation (next_attempt_at, invitation_id) WHERE delivery = 'pending';

-- Whoever accepts an invitation names it by its token alone.
CREATE INDEX invitation_token ON invitation (token_hash);

-- An invitation as the API shows it. The release before knows no `failed` and reads `delivery`: it must not see one.
CREATE OR REPLACE VIEW invitation_profile AS
SELECT invitation_id, tenant_id, users.email, role,
       CASE delivery WHEN 'failed' THEN 'pending' ELSE delivery END AS delivery,
       invitation.created_at, expires_at, accepted_at,
       delivery AS delivery_now, invited_by, user_id
FROM invitation JOIN users USING (user_id);

-- A user as the API shows it.
CREATE OR REPLACE VIEW user_profile AS
SELECT users.user_id, users.email, users.created_at,
       coalesce(
           (SELECT jsonb_agg(
                jsonb_build_object('tenantId', tenant_id, 'role', role, 'blocked', tenant_block.tenant_id IS NOT NULL)
                ORDER BY tenant_id)
            FROM membership LEFT JOIN tenant_block USING (tenant_id)
            WHERE membership.user_id = users.user_id AND tenant_id <> '_'),
           '[]') AS memberships,
       (SELECT role FROM membership WHERE membership.user_id = users.user_id AND tenant_id = '_') AS operator_role,
       users.name, users.version
FROM users;

-- A user as the other members of one of its tenants see it: where else it belongs is not theirs to know, nor, until it
-- has accepted, that it belongs anywhere. Whoever invites an address would learn whose it is.
CREATE VIEW member_profile AS
SELECT membership.tenant_id, users.user_id, users.email, membership.created_at,
       jsonb_build_array(jsonb_build_object(
           'tenantId', membership.tenant_id, 'role', membership.role,
           'blocked', tenant_block.tenant_id IS NOT NULL)) AS memberships,
       NULL::text AS operator_role,
       CASE WHEN is_in THEN users.name END AS name,
       CASE WHEN is_in THEN users.version ELSE 1 END AS version
FROM membership
JOIN users USING (user_id)
LEFT JOIN tenant_block USING (tenant_id)
LEFT JOIN invitation USING (tenant_id, user_id)
CROSS JOIN LATERAL (SELECT invitation_id IS NULL OR accepted_at IS NOT NULL) AS place (is_in);
