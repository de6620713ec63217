-- Licences: subscriptions of products beside the one of the account's plan. Each is charged, paused and ended with it.
-- Code of the release before runs on this schema too, as long as no account has a licence: all that it writes is of the
-- account's plan. There are none until the catalog names a product's plan, which is to wait until all run the new code.

ALTER TABLE subscription
    ADD COLUMN product text NOT NULL DEFAULT ''            -- what is licensed; '' is the account's own plan
    CHECK (product = '' OR product ~ '^[a-z0-9][a-z0-9._-]{0,62}$');

-- A licence that the account has no more is ended and keeps what it was charged for, until the final invoice; it goes
-- on if the product is taken again. When the tenant was activated, and by whom, all rows of an account say alike.
CREATE UNIQUE INDEX one_subscription_of_a_product ON subscription (account_id, product);
DROP INDEX one_subscription;

-- As in 0002, with the licences in a place of their own, because there may be several.
CREATE OR REPLACE VIEW live_record AS
    SELECT tenant_id, 'account' AS place FROM account
    UNION ALL
    SELECT tenant_id, CASE product WHEN '' THEN 'subscription' ELSE 'licence' END
    FROM subscription JOIN account USING (account_id)
    UNION ALL
    SELECT tenant_id, 'charged_period'
    FROM charged_period JOIN subscription USING (subscription_id) JOIN account USING (account_id)
    UNION ALL
    SELECT tenant_id, 'invoice' FROM invoice WHERE state = 'draft';

-- As in 0002: whoever is charged for anything, once.
CREATE OR REPLACE VIEW charged_tenant AS
    SELECT DISTINCT tenant_id FROM subscription JOIN account USING (account_id) WHERE state = 'active';

-- As in 0003, with the plan of each licence. Either all that an account has is charged or nothing of it.
CREATE OR REPLACE VIEW audited_fact (tenant_id, fact, value) AS
    SELECT account.tenant_id, CASE product WHEN '' THEN 'plan' ELSE 'licence:' || product END, subscription.plan
    FROM subscription JOIN account USING (account_id)
    WHERE product = '' OR state <> 'ended'
    UNION ALL
    SELECT account.tenant_id, 'charged',
           CASE WHEN bool_and(state = 'active') THEN 'true'
                WHEN bool_or(state = 'active') THEN 'partly'
                ELSE 'false'
           END
    FROM subscription JOIN account USING (account_id)
    WHERE product = '' OR state <> 'ended'
    GROUP BY account.tenant_id;
