-- Whether a tenant has spent what it may, as billing tells it. Code of the release before goes on taking its usage.
ALTER TABLE tracked_tenant
    ADD COLUMN is_blocked       boolean NOT NULL DEFAULT false,
    ADD COLUMN spending_edition integer NOT NULL DEFAULT 0;  -- of what was told: an older one that comes late is known
