-- How far a customer is behind with its payments, as billing told last. Code of the release before hears nothing of it:
-- it leaves these columns as they are, and takes whoever is suspended for them for suspended. The view account stays as it
-- is: what that code has prepared selects all of it, and would fail once where there is a column more.
ALTER TABLE customer
    ADD COLUMN overdue         text NOT NULL DEFAULT 'clear'
        CHECK (overdue IN ('clear', 'past_due', 'suspension', 'termination')),
    ADD COLUMN overdue_edition integer NOT NULL DEFAULT 0,  -- of what was told; an older one that comes late is known
    DROP CONSTRAINT customer_suspended_for_check,
    ADD CONSTRAINT customer_suspended_for_check CHECK (suspended_for IN ('operator', 'expiration', 'payment'));
