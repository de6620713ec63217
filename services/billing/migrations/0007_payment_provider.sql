-- A payment provider: whom it knows, what it was asked for, what it told, and where its books differ from ours.

-- By which name a provider knows a tenant. It stays as long as the tenant's debts do.
CREATE TABLE provider_customer (
    provider  text NOT NULL,
    tenant_id text NOT NULL REFERENCES debtor,
    reference text NOT NULL,
    made_at   timestamptz NOT NULL,
    PRIMARY KEY (provider, tenant_id),
    UNIQUE (provider, reference)
);

-- What a provider is asked to take for an invoice: all that is due of it. Where another amount is due later, the bill is
-- withdrawn and there is a next edition. Money is only ever taken for a bill, and for each once.
CREATE TABLE bill (
    invoice_id uuid NOT NULL REFERENCES receivable,
    edition    integer NOT NULL CHECK (edition >= 1),
    tenant_id  text NOT NULL REFERENCES debtor,
    provider   text NOT NULL,
    currency   text NOT NULL REFERENCES currency,
    amount     numeric(20, 4) NOT NULL CHECK (amount > 0),
    reference  text,                                         -- by which the provider knows it; null until it is told
    state      text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'paid', 'void')),
    is_known   boolean NOT NULL DEFAULT true,                -- whether that is what the provider says now
    ask_at     timestamptz,                                  -- when the money is asked for next; null: never again
    asked_at   timestamptz,                                  -- since when it is asked for; null: every asking is answered
    failures   integer NOT NULL DEFAULT 0,                   -- of the provider itself: each asks for a new idempotency key
    look_at    timestamptz,                                  -- when there may be something to do about it; null: unless
                                                             -- there is news
    held_until timestamptz NOT NULL DEFAULT '-infinity',     -- until then somebody is doing it
    news       integer NOT NULL DEFAULT 0,                   -- how often the provider has said that it changed
    made_at    timestamptz NOT NULL,
    PRIMARY KEY (invoice_id, edition),
    UNIQUE (provider, reference)
);

CREATE UNIQUE INDEX one_open_bill ON bill (invoice_id) WHERE state = 'open';
CREATE INDEX bill_to_look_at ON bill (look_at, invoice_id) WHERE look_at IS NOT NULL;
CREATE INDEX bill_made_at ON bill (provider, made_at);

-- What a provider has told, each once.
CREATE TABLE provider_event (
    provider    text NOT NULL,
    event_id    text NOT NULL,
    type        text NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (provider, event_id)
);

CREATE INDEX provider_event_received_at ON provider_event (received_at);

-- What a provider says it has taken, while its books and ours are compared.
CREATE TABLE taken_payment (
    provider    text NOT NULL,
    reference   text NOT NULL,
    currency    text NOT NULL,
    amount      numeric(20, 4) NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (provider, reference)
);

-- Where the books of a provider and ours differed when they were last compared. Nothing puts it right by itself.
--   unbooked  the provider has taken money that is not booked     amount  it has taken another amount than is booked
--   untaken   money is booked that the provider has not taken
CREATE TABLE payment_drift (
    provider   text NOT NULL,
    reference  text NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('unbooked', 'untaken', 'amount')),
    tenant_id  text,                                         -- null where no bill is known by the reference
    invoice_id uuid,
    currency   text NOT NULL,
    taken      numeric(20, 4) NOT NULL,                      -- as the provider says; 0 for nothing
    booked     numeric(20, 4) NOT NULL,                      -- as the payments here say; 0 for nothing
    found_at   timestamptz NOT NULL,                         -- when it was found first
    PRIMARY KEY (provider, reference)
);

-- When the books of a provider are compared next.
CREATE TABLE reconciliation (
    provider   text PRIMARY KEY,
    compare_at timestamptz NOT NULL
);
