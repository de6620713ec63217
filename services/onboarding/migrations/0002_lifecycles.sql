-- All lifecycles of a tenant. Code of the release before goes on working with this schema.

-- A workflow:
--   running -> completed
--   running -> compensating -> compensated
--   running, compensating -> needs_attention    tried in vain too often, or past its deadline
--   needs_attention -> running, compensating    by itself when it goes on, or because an operator had it tried again
--   needs_attention -> completed, compensated, abandoned
ALTER TABLE workflow
    ADD COLUMN definition  text,              -- the name of its definition; null: the same as its kind
    ADD COLUMN deadline_at timestamptz;       -- when it must have ended; null once that was taken into account

CREATE INDEX workflow_deadline ON workflow (deadline_at) WHERE deadline_at IS NOT NULL;
CREATE INDEX workflow_of_kind ON workflow (kind, created_at DESC, id DESC);

-- What a customer has ordered since the onboarding; null: what was ordered then.
ALTER TABLE customer
    ADD COLUMN customer_name text,
    ADD COLUMN tier          text,
    ADD COLUMN products      jsonb,
    ADD COLUMN expiration    date,
    ADD COLUMN suspended_for text CHECK (suspended_for IN ('operator', 'expiration')),  -- null: not suspended
    ADD COLUMN warned_for    date,                                                      -- the expiration that was told
    -- When to look next whether the contract's end wants something done.
    ADD COLUMN review_at     timestamptz NOT NULL DEFAULT '-infinity';

CREATE INDEX customer_of_tenant ON customer (tenant_id);
CREATE INDEX customer_review ON customer (review_at);

-- A customer as onboarding knows it: what it ordered last. The records are with the other services.
-- While a customer is renamed it holds a second name, which belongs to the workflow that renames it and is not shown here.
CREATE VIEW account AS
    SELECT customer.tenant_id,
           customer.name_key,
           onboarding.id                                                                AS workflow_id,
           onboarding.status = 'completed'                                              AS is_onboarded,
           coalesce(customer.customer_name, onboarding.customer_name)                   AS customer_name,
           coalesce(customer.tier, onboarding.request ->> 'tier')                       AS tier,
           coalesce(customer.products, onboarding.request -> 'products', '[]')          AS products,
           coalesce(customer.expiration, (onboarding.request ->> 'expiration')::date)   AS expiration,
           customer.suspended_for,
           customer.warned_for,
           customer.review_at,
           -- Whether its last workflow was abandoned, so that what is known here may not be so.
           coalesce((SELECT last.status = 'abandoned' FROM workflow AS last
                     WHERE last.tenant_id = customer.tenant_id
                     ORDER BY last.created_at DESC, last.id DESC LIMIT 1), false)       AS is_in_doubt
    FROM customer
    JOIN workflow AS onboarding ON onboarding.id = customer.workflow_id AND onboarding.kind = 'onboard';

-- What a tenant must be like by now, for the residue audit:
--   alive       onboarded, and not off-boarded
--   gone        never came to be, or was off-boarded
--   unfinished  a workflow is at work on it, or the last one was abandoned
CREATE VIEW tenant_outcome (tenant_id, outcome) AS
    SELECT tenant_id,
           CASE WHEN bool_or(status IN ('running', 'compensating', 'needs_attention'))
                     OR (array_agg(status ORDER BY created_at DESC, id DESC))[1] = 'abandoned' THEN 'unfinished'
                WHEN bool_or(kind = 'offboard' AND status = 'completed') THEN 'gone'
                WHEN bool_or(kind = 'onboard' AND status = 'completed') THEN 'alive'
                ELSE 'gone'
           END
    FROM workflow GROUP BY tenant_id;
