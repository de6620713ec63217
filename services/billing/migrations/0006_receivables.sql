-- What is still owed of invoices, and what is owed to tenants.

-- Whoever was ever invoiced or given a credit. It outlives the account, as its invoices do: money that was owed stays
-- owed. All that changes what a tenant owes locks its row here first.
CREATE TABLE debtor (
    tenant_id       text PRIMARY KEY,
    -- How far it is behind with its payments, counted from the oldest invoice of which something is due:
    --   clear, past_due (told), suspension (to be suspended), termination (to be off-boarded)
    overdue         text NOT NULL DEFAULT 'clear' CHECK (overdue IN ('clear', 'past_due', 'suspension', 'termination')),
    overdue_edition integer NOT NULL DEFAULT 0,              -- how often that was told
    overdue_since   timestamptz NOT NULL DEFAULT '-infinity', -- when it became so: nothing worse follows at once
    look_at         timestamptz NOT NULL DEFAULT 'infinity'  -- when it may have become another
);

CREATE INDEX debtor_to_look_at ON debtor (look_at, tenant_id) WHERE look_at < 'infinity';
CREATE INDEX debtor_behind ON debtor (tenant_id) WHERE overdue <> 'clear';

-- What a debtor may still use up: the sum of its credit entries. In each currency that it was ever invoiced in, because
-- a tenant whose account is opened anew may have another one.
CREATE TABLE balance (
    tenant_id text NOT NULL REFERENCES debtor,
    currency  text NOT NULL REFERENCES currency,
    credit    numeric(28, 4) NOT NULL DEFAULT 0 CHECK (credit >= 0),
    PRIMARY KEY (tenant_id, currency)
);

-- A final invoice of which something was to be paid. Of its total is taken off what credit notes say, what credit was
-- used and what was paid; the rest is due.
CREATE TABLE receivable (
    invoice_id uuid PRIMARY KEY REFERENCES invoice,
    tenant_id  text NOT NULL REFERENCES debtor,
    number     bigint NOT NULL UNIQUE,
    currency   text NOT NULL REFERENCES currency,
    total      numeric(20, 4) NOT NULL CHECK (total > 0),
    noted      numeric(20, 4) NOT NULL DEFAULT 0 CHECK (noted >= 0 AND noted <= total),
    credited   numeric(20, 4) NOT NULL DEFAULT 0 CHECK (credited >= 0),
    paid       numeric(20, 4) NOT NULL DEFAULT 0 CHECK (paid >= 0),
    due        numeric(20, 4) NOT NULL GENERATED ALWAYS AS (total - noted - credited - paid) STORED CHECK (due >= 0),
    issued_at  timestamptz NOT NULL,
    settled_at timestamptz,                                  -- since when nothing is due
    -- Asking the payment provider for it:
    attempts   integer NOT NULL DEFAULT 0,                   -- how often it was asked
    collect_at timestamptz,                                  -- when it is asked next; null: never again
    CONSTRAINT settled_when_nothing_is_due CHECK ((due = 0) = (settled_at IS NOT NULL))
);

CREATE INDEX receivable_of_tenant ON receivable (tenant_id, number);
CREATE INDEX receivable_that_is_due ON receivable (tenant_id, issued_at) WHERE due > 0;
CREATE INDEX receivable_to_collect ON receivable (collect_at, invoice_id) WHERE collect_at IS NOT NULL;

-- Up to which number invoices are booked as receivables: they are numbered without gaps, in the order in which they are
-- committed. Those of before are not: nobody kept account of their payments.
CREATE TABLE booking (
    is_the_only_one boolean PRIMARY KEY DEFAULT true CHECK (is_the_only_one),
    last            bigint NOT NULL
);

INSERT INTO booking (last) SELECT last FROM invoice_series WHERE name = 'invoice';

-- What has come in. Append-only, like the three below: what is wrong is put right by another entry.
CREATE TABLE payment (
    payment_id  uuid PRIMARY KEY,
    tenant_id   text NOT NULL REFERENCES debtor,
    invoice_id  uuid NOT NULL REFERENCES receivable,
    provider    text NOT NULL,                               -- who took it: 'manual' or a payment provider
    reference   text NOT NULL,                               -- by which that one knows it
    currency    text NOT NULL REFERENCES currency,
    amount      numeric(20, 4) NOT NULL CHECK (amount > 0),  -- what was not due becomes credit
    received_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    UNIQUE (provider, reference)                             -- nothing comes in twice
);

CREATE INDEX payment_of_tenant ON payment (tenant_id, payment_id);

-- What an issued invoice is corrected by: it never changes itself. Numbered like invoices, in a series of their own.
CREATE TABLE credit_note (
    credit_note_id uuid PRIMARY KEY,
    number         bigint NOT NULL UNIQUE,
    invoice_id     uuid NOT NULL REFERENCES receivable,
    tenant_id      text NOT NULL REFERENCES debtor,
    currency       text NOT NULL REFERENCES currency,
    amount         numeric(20, 4) NOT NULL CHECK (amount > 0),
    reason         text NOT NULL,
    issued_at      timestamptz NOT NULL
);

CREATE INDEX credit_note_of_tenant ON credit_note (tenant_id, credit_note_id);

INSERT INTO invoice_series (name) VALUES ('credit_note');

-- Every change of a tenant's credit.
--   granted   + by an operator                    invoice   + an invoice whose total is below zero
--   overpaid  + of a payment what was not due     released  + of an invoice that was settled, by a credit note
--   applied   - used for an invoice
CREATE TABLE credit_entry (
    entry_id    uuid PRIMARY KEY,
    tenant_id   text NOT NULL REFERENCES debtor,
    kind        text NOT NULL CHECK (kind IN ('granted', 'invoice', 'overpaid', 'released', 'applied')),
    currency    text NOT NULL REFERENCES currency,
    amount      numeric(20, 4) NOT NULL CHECK (CASE kind WHEN 'applied' THEN amount < 0 ELSE amount > 0 END),
    invoice_id  uuid REFERENCES invoice,                     -- what it comes from, or is used for
    payment_id  uuid REFERENCES payment,
    reason      text,
    recorded_at timestamptz NOT NULL,
    CONSTRAINT granted_with_a_reason CHECK ((kind = 'granted') = (reason IS NOT NULL))
);

CREATE INDEX credit_entry_of_tenant ON credit_entry (tenant_id, entry_id);
CREATE INDEX credit_entry_of_invoice ON credit_entry (invoice_id);  -- a draft that is deleted must be found to have none

CREATE FUNCTION refuse_change_of_books() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'the books are append-only' USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER payment_is_immutable BEFORE UPDATE OR DELETE ON payment
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_books();
CREATE TRIGGER credit_note_is_immutable BEFORE UPDATE OR DELETE ON credit_note
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_books();
CREATE TRIGGER credit_entry_is_immutable BEFORE UPDATE OR DELETE ON credit_entry
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_books();

-- Who asked with which key for what is done once: a grant, a credit note.
CREATE TABLE money_request (
    principal       text NOT NULL,
    idempotency_key text NOT NULL,
    fingerprint     bytea NOT NULL,
    made            uuid NOT NULL,                           -- the entry or the credit note
    requested_at    timestamptz NOT NULL,
    PRIMARY KEY (principal, idempotency_key)
);
