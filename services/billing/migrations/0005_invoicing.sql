-- Plans in versions with prices of usage, and an invoice for every month.

-- What a plan costs changes by versions; a version never does. A plan as it was before is its version 1.
-- Code of the release before knows one version only, so no second one is to be published until all run the new code.
CREATE TABLE plan_version (
    plan       text NOT NULL REFERENCES plan,
    version    integer NOT NULL CHECK (version >= 1),
    pays       text NOT NULL CHECK (pays IN ('arrears', 'advance')),        -- the base fee: after the month, or before
    trial_days integer NOT NULL DEFAULT 0 CHECK (trial_days BETWEEN 0 AND 365),  -- without base fee, since the first day
    proration  text NOT NULL DEFAULT 'day' CHECK (proration IN ('day', 'second')),
    starts_at  timestamptz NOT NULL,                                        -- for whoever takes the plan from then on
    reaches_at timestamptz CHECK (reaches_at >= starts_at),                 -- for whoever has it, from then on; null: never
    PRIMARY KEY (plan, version)
);

-- The base fee. A version is sold in exactly the currencies that it has a price in.
CREATE TABLE plan_version_price (
    plan     text NOT NULL,
    version  integer NOT NULL,
    currency text NOT NULL REFERENCES currency,
    amount   numeric(20, 4) NOT NULL CHECK (amount >= 0),
    PRIMARY KEY (plan, version, currency),
    FOREIGN KEY (plan, version) REFERENCES plan_version
);

-- What the month's usage of a meter costs, after the month.
CREATE TABLE plan_charge (
    plan     text NOT NULL,
    version  integer NOT NULL,
    currency text NOT NULL,
    meter    text NOT NULL CHECK (meter ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    price    jsonb NOT NULL,                                         -- a price model, as /v1/price-preview takes it
    included numeric NOT NULL DEFAULT 0 CHECK (included >= 0),       -- units that cost nothing
    minimum  numeric CHECK (minimum >= 0),                           -- what a whole month of it costs at least
    PRIMARY KEY (plan, version, currency, meter),
    FOREIGN KEY (plan, version, currency) REFERENCES plan_version_price
);

INSERT INTO plan_version (plan, version, pays, starts_at) SELECT name, 1, 'arrears', '-infinity' FROM plan;

INSERT INTO plan_version_price (plan, version, currency, amount) SELECT plan, 1, currency, amount FROM plan_price;

-- By which version of its plan somebody is charged: the one in force when it was taken.
ALTER TABLE subscription ADD COLUMN plan_version integer NOT NULL DEFAULT 1;
ALTER TABLE charged_period ADD COLUMN plan_version integer NOT NULL DEFAULT 1;

-- In whose months an account is charged, and how far it has come.
ALTER TABLE account
    ADD COLUMN time_zone       text NOT NULL DEFAULT 'UTC',          -- of the IANA's database
    ADD COLUMN closes_at       timestamptz,                          -- the end of what the next invoice is of; null before any
    ADD COLUMN look_at         timestamptz NOT NULL DEFAULT '-infinity',  -- when there may be something to do about it
    ADD COLUMN usage_wanted_at timestamptz,                          -- when metrics was asked what that invoice needs
    ADD COLUMN stuck_since     timestamptz,                          -- since when its invoice cannot be made
    -- What was told last of the base fees of a month, and how often; code of the release before tells nothing.
    ADD COLUMN revenue         numeric(20, 4) NOT NULL DEFAULT 0,
    ADD COLUMN revenue_edition integer NOT NULL DEFAULT 0;

CREATE INDEX account_to_look_at ON account (look_at, tenant_id);
CREATE INDEX account_that_is_stuck ON account (stuck_since) WHERE stuck_since IS NOT NULL;

-- What a tenant has used in a stretch of time, as metrics reported it last.
CREATE TABLE usage_report (
    tenant_id  text NOT NULL,
    since      timestamptz NOT NULL,
    until      timestamptz NOT NULL CHECK (until > since),
    quantities jsonb NOT NULL,                                       -- meter to a decimal number, as text
    stated_at  timestamptz NOT NULL,                                 -- what was stored until then is in it
    PRIMARY KEY (tenant_id, since, until)
);

-- Invoices are numbered when they become final, by whoever makes them so, in the same transaction: there is no gap.
CREATE TABLE invoice_series (
    name text PRIMARY KEY,
    last bigint NOT NULL DEFAULT 0
);

INSERT INTO invoice_series (name) VALUES ('invoice');

ALTER TABLE invoice
    ADD COLUMN number          bigint UNIQUE,
    ADD COLUMN kind            text NOT NULL DEFAULT 'closing' CHECK (kind IN ('periodic', 'closing')),
    ADD COLUMN closes_at       timestamptz,                          -- what happened before is on it,
    ADD COLUMN usage_stated_at timestamptz,                          -- of usage what was stored before
    ADD COLUMN time_zone       text NOT NULL DEFAULT 'UTC',
    DROP CONSTRAINT invoice_total_check;                             -- more may be given back than is charged

CREATE UNIQUE INDEX one_invoice_a_period ON invoice (tenant_id, closes_at) WHERE kind = 'periodic';

ALTER TABLE invoice_line
    ADD COLUMN item_key text,                                        -- what is charged: over all invoices it sums up to its price
    ADD COLUMN since    timestamptz,                                 -- when it was provided
    ADD COLUMN until    timestamptz,
    ADD COLUMN unit     text NOT NULL DEFAULT '';                    -- of the quantity; '' where the description says enough

CREATE FUNCTION number_invoice() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE invoice_series SET last = last + 1 WHERE name = 'invoice' RETURNING last INTO NEW.number;
    RETURN NEW;
END $$;

-- Those that were issued before get their numbers in the order in which they were.
ALTER TABLE invoice DISABLE TRIGGER issued_invoice_is_immutable;
UPDATE invoice SET number = issued.number
FROM (SELECT invoice_id, row_number() OVER (ORDER BY issued_at, invoice_id) AS number
      FROM invoice WHERE state = 'final') AS issued
WHERE invoice.invoice_id = issued.invoice_id;
UPDATE invoice_series SET last = (SELECT count(*) FROM invoice WHERE state = 'final');
ALTER TABLE invoice ENABLE TRIGGER issued_invoice_is_immutable;

CREATE TRIGGER invoice_is_numbered BEFORE INSERT OR UPDATE ON invoice
    FOR EACH ROW WHEN (NEW.state = 'final' AND NEW.number IS NULL) EXECUTE FUNCTION number_invoice();

ALTER TABLE invoice ADD CONSTRAINT numbered_when_final CHECK ((state = 'final') = (number IS NOT NULL));

-- As in 0004, with what was reported.
CREATE OR REPLACE VIEW live_record AS
    SELECT tenant_id, 'account' AS place FROM account
    UNION ALL
    SELECT tenant_id, CASE product WHEN '' THEN 'subscription' ELSE 'licence' END
    FROM subscription JOIN account USING (account_id)
    UNION ALL
    SELECT tenant_id, 'charged_period'
    FROM charged_period JOIN subscription USING (subscription_id) JOIN account USING (account_id)
    UNION ALL
    SELECT tenant_id, 'invoice' FROM invoice WHERE state = 'draft'
    UNION ALL
    SELECT tenant_id, 'usage_report' FROM usage_report;
