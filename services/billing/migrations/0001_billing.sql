-- What can be bought, at which price, and who has bought it. Amounts are exact and always have a currency beside them.

CREATE TABLE currency (
    code   text PRIMARY KEY CHECK (code ~ '^[A-Z]{3}$'),             -- ISO 4217
    digits integer NOT NULL CHECK (digits BETWEEN 0 AND 4)           -- of its minor unit: how amounts are written
);

-- The catalog of plans. A tier names its plan; nothing here knows of tiers.
CREATE TABLE plan (
    name     text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    rank     integer NOT NULL UNIQUE,                                -- from the cheapest to the dearest
    interval text NOT NULL CHECK (interval IN ('month')),            -- what an amount pays for
    currency text NOT NULL                                           -- for whoever names none
);

-- A plan is sold in exactly the currencies that it has a price in.
CREATE TABLE plan_price (
    plan     text NOT NULL REFERENCES plan,
    currency text NOT NULL REFERENCES currency,
    amount   numeric(20, 4) NOT NULL CHECK (amount >= 0),
    PRIMARY KEY (plan, currency)
);

INSERT INTO currency (code, digits) VALUES ('USD', 2), ('EUR', 2);

INSERT INTO plan (name, rank, interval, currency) VALUES
    ('free',     1, 'month', 'USD'),
    ('standard', 2, 'month', 'USD'),
    ('premium',  3, 'month', 'USD');

INSERT INTO plan_price (plan, currency, amount) VALUES
    ('free',     'USD', 0.00),
    ('free',     'EUR', 0.00),
    ('standard', 'USD', 49.00),
    ('standard', 'EUR', 45.00),
    ('premium',  'USD', 499.00),
    ('premium',  'EUR', 459.00);

ALTER TABLE plan ADD CONSTRAINT plan_has_a_price_in_its_own_currency
    FOREIGN KEY (name, currency) REFERENCES plan_price (plan, currency) DEFERRABLE INITIALLY DEFERRED;

-- Who pays. An account says nothing about being charged; its subscription does.
CREATE TABLE account (
    account_id      uuid PRIMARY KEY,
    tenant_id       text NOT NULL UNIQUE,
    customer_name   text NOT NULL,
    billing_address text,
    currency        text NOT NULL REFERENCES currency,
    opened_at       timestamptz NOT NULL
);

-- What is paid for, and since when.
--   pending  nothing is charged: the tenant was not activated yet, or its activation was taken back   -> active
--   active   charged since started_at                                                                -> pending, ended
--   ended    charged no more                                                                          final
CREATE TABLE subscription (
    subscription_id uuid PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES account ON DELETE CASCADE,
    plan            text NOT NULL,
    currency        text NOT NULL,
    amount          numeric(20, 4) NOT NULL CHECK (amount >= 0),     -- as agreed; a later price of the plan changes nothing
    state           text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'active', 'ended')),
    started_at      timestamptz,
    -- Facts arrive in any order, and clocks differ. So not times but workflows tell which activation was taken back:
    activated_by    uuid,                                            -- the workflow that had the tenant activated
    withdrawn_by    uuid,                                            -- the last workflow that took its activation back
    FOREIGN KEY (plan, currency) REFERENCES plan_price,
    CONSTRAINT started_unless_pending CHECK ((state = 'pending') = (started_at IS NULL)),
    CONSTRAINT not_charged_for_what_was_withdrawn CHECK (state <> 'active' OR activated_by <> withdrawn_by)
);

CREATE INDEX subscription_of_account ON subscription (account_id);

CREATE UNIQUE INDEX one_live_subscription ON subscription (account_id) WHERE state <> 'ended';

-- Every place where a tenant has left something; the residue audit counts these rows.
CREATE VIEW live_record AS
    SELECT tenant_id, 'account' AS place FROM account
    UNION ALL
    SELECT tenant_id, 'subscription' FROM subscription JOIN account USING (account_id);
