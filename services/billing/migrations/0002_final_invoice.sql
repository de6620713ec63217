-- What was charged when, and the invoice that is made of it in the end.

-- For the exclusion constraint below; the owner of a database may create it, because it is a trusted extension.
CREATE EXTENSION IF NOT EXISTS btree_gist;

-- The states of a subscription:
--   pending  nothing is charged: the tenant was not activated yet, or its activation was taken back    -> active, ended
--   active   charged since the later of started_at and charged_since                          -> pending, paused, ended
--   paused   nothing is charged until billing is resumed                                      -> pending, active, ended
--   ended    nothing is charged any more; there is a draft of the final invoice, or it is issued
--            -> what it was before, if the closing is taken back
-- The previous release knows no charged_since: it leaves the column as it is, also where a subscription becomes pending
-- and active again. Hence "the later of"; an older one means nothing.
ALTER TABLE subscription
    ADD COLUMN charged_since timestamptz,                         -- of the running stretch, where it is not the first
    ADD COLUMN version       integer NOT NULL DEFAULT 0,  -- grows with every change; an undo looks whether there was another since
    DROP CONSTRAINT subscription_state_check,
    ADD CONSTRAINT subscription_state_check CHECK (state IN ('pending', 'active', 'paused', 'ended')),
    DROP CONSTRAINT started_unless_pending,            -- what was never activated can be closed too
    ADD CONSTRAINT started_unless_pending
        CHECK (CASE state WHEN 'pending' THEN started_at IS NULL WHEN 'ended' THEN true ELSE started_at IS NOT NULL END);

-- An account has one subscription; what it was charged for earlier is in charged_period.
CREATE UNIQUE INDEX one_subscription ON subscription (account_id);
DROP INDEX subscription_of_account;
DROP INDEX one_live_subscription;

-- Stretches of time that are over and were charged, each by one plan at one amount; from started_at to before ended_at.
CREATE TABLE charged_period (
    subscription_id uuid NOT NULL REFERENCES subscription ON DELETE CASCADE,
    plan            text NOT NULL,
    currency        text NOT NULL,
    amount          numeric(20, 4) NOT NULL CHECK (amount >= 0),     -- per interval of the plan, as agreed
    started_at      timestamptz NOT NULL,
    ended_at        timestamptz NOT NULL,
    PRIMARY KEY (subscription_id, started_at),
    CONSTRAINT it_takes_time CHECK (started_at < ended_at),
    CONSTRAINT nothing_is_charged_twice
        EXCLUDE USING gist (subscription_id WITH =, tstzrange(started_at, ended_at) WITH &&)
);

-- What is owed. It outlives the account, so it has all it needs of it and refers to nothing.
--   draft   of an account that is closed; gone without a trace if it is reopened   -> final
--   final   issued; never changed and never deleted                                final
CREATE TABLE invoice (
    invoice_id      uuid PRIMARY KEY,
    tenant_id       text NOT NULL,
    customer_name   text NOT NULL,
    billing_address text,
    currency        text NOT NULL REFERENCES currency,
    state           text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'final')),
    total           numeric(20, 4) NOT NULL CHECK (total >= 0),      -- the sum of its lines
    drafted_at      timestamptz NOT NULL,
    issued_at       timestamptz,
    CONSTRAINT issued_when_final CHECK ((state = 'final') = (issued_at IS NOT NULL))
);

CREATE INDEX invoice_of_tenant ON invoice (tenant_id, invoice_id);

CREATE UNIQUE INDEX one_draft ON invoice (tenant_id) WHERE state = 'draft';

CREATE TABLE invoice_line (
    invoice_id  uuid NOT NULL REFERENCES invoice ON DELETE CASCADE,
    position    integer NOT NULL,
    description text NOT NULL,
    quantity    numeric NOT NULL,                                    -- of what the description says
    amount      numeric(20, 4) NOT NULL,                             -- rounded to the digits of the currency
    PRIMARY KEY (invoice_id, position)
);

CREATE FUNCTION refuse_change_of_issued_invoice() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'invoice % is issued and cannot be changed', OLD.invoice_id USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER issued_invoice_is_immutable BEFORE UPDATE OR DELETE ON invoice
    FOR EACH ROW WHEN (OLD.state = 'final') EXECUTE FUNCTION refuse_change_of_issued_invoice();

CREATE FUNCTION refuse_change_of_issued_line() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    -- OLD is null on insert, NEW on delete.
    IF EXISTS (SELECT FROM invoice WHERE invoice_id IN (OLD.invoice_id, NEW.invoice_id) AND state = 'final') THEN
        RAISE EXCEPTION 'invoice % is issued and cannot be changed', coalesce(OLD.invoice_id, NEW.invoice_id)
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN coalesce(NEW, OLD);
END $$;

CREATE TRIGGER line_of_issued_invoice_is_immutable BEFORE INSERT OR UPDATE OR DELETE ON invoice_line
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_issued_line();

-- Every place where a tenant has left something; the residue audit counts these rows. Issued invoices are not among
-- them: the law wants them kept when all else is gone. Lines go with their draft.
CREATE OR REPLACE VIEW live_record AS
    SELECT tenant_id, 'account' AS place FROM account
    UNION ALL
    SELECT tenant_id, 'subscription' FROM subscription JOIN account USING (account_id)
    UNION ALL
    SELECT tenant_id, 'charged_period'
    FROM charged_period JOIN subscription USING (subscription_id) JOIN account USING (account_id)
    UNION ALL
    SELECT tenant_id, 'invoice' FROM invoice WHERE state = 'draft';

-- The tenants that are charged at this moment; the residue audit compares them with those that are active.
CREATE VIEW charged_tenant AS
    SELECT tenant_id FROM subscription JOIN account USING (account_id) WHERE state = 'active';
