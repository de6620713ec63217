-- What a tenant may spend in a month, and what was told and done about it.

-- How often it was told whether the tenant's usage is to be refused: a limit may go, and another one come. This is first
-- because it locks the table for itself: after the reference below, which locks it for less, there can be a deadlock.
ALTER TABLE account ADD COLUMN spending_edition integer NOT NULL DEFAULT 0;

-- It goes with the account. The row of the account's own subscription is locked before it.
CREATE TABLE spending_limit (
    tenant_id       text PRIMARY KEY REFERENCES account (tenant_id) ON DELETE CASCADE,
    amount          numeric(20, 4) NOT NULL CHECK (amount > 0),       -- in the currency of the account
    -- What is done when it is reached, besides telling:
    --   alert        nothing
    --   invoice_now  what was used so far is invoiced, and again whenever as much was used as the limit
    --   block        usage is refused until the month is over or the limit is another
    action          text NOT NULL CHECK (action IN ('alert', 'invoice_now', 'block')),
    look_at         timestamptz NOT NULL DEFAULT '-infinity',         -- when there may be something to do about it
    usage_wanted_at timestamptz,                                      -- when metrics was asked last
    -- What was found last, and what was told of it:
    month           date CHECK (extract(day FROM month) = 1),         -- in the account's time zone; null: nothing yet
    spent           numeric(20, 4),
    reviewed_at     timestamptz,
    percent_told    integer NOT NULL DEFAULT 0 CHECK (percent_told IN (0, 80, 100)),  -- in that month
    invoiced_at     timestamptz,                                      -- when an invoice was made because of it last
    is_blocked      boolean NOT NULL DEFAULT false,                   -- as was told last
    CONSTRAINT reviewed_as_a_whole CHECK (num_nulls(month, spent, reviewed_at) IN (0, 3))
);

CREATE INDEX spending_limit_to_look_at ON spending_limit (look_at, tenant_id);

-- As in 0005, with what may be spent.
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
    SELECT tenant_id, 'usage_report' FROM usage_report
    UNION ALL
    SELECT tenant_id, 'spending_limit' FROM spending_limit;
