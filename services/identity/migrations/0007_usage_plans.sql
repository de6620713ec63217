-- How much each tenant may ask of applications, and how much it has: what /v1/authorize keeps to. A tenant without a plan
-- was made before there were any, and nothing of it is limited until its tier is changed.

CREATE TABLE tenant_plan (
    tenant_id           text PRIMARY KEY,
    version             bigint NOT NULL,     -- of the tenant's record where the tier is kept; an older plan never replaces a newer
    tier                text NOT NULL,       -- its name, for the application
    requests_per_second integer CHECK (requests_per_second > 0),  -- null: as many as they like
    requests_per_day    bigint CHECK (requests_per_day > 0)       -- likewise; a day of UTC
);

-- Requests that were let pass, counted by every replica in batches; only of tenants whose plan limits the day.
-- It goes with the plan, so that a replica that counts late leaves nothing of a tenant that is gone.
CREATE TABLE usage_day (
    tenant_id text NOT NULL REFERENCES tenant_plan ON DELETE CASCADE,
    day       date NOT NULL,
    count     bigint NOT NULL,
    PRIMARY KEY (tenant_id, day)
) WITH (fillfactor = 70);

CREATE INDEX usage_day_day ON usage_day (day);

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
SELECT tenant_id, 'usage_day' FROM usage_day;
