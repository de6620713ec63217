-- Who decided what: appended to and never changed, each entry sealed together with the one before it.

-- It outlives the tenant, so it is no part of `live_record`.
CREATE TABLE audit_entry (
    tenant_id     text NOT NULL,         -- '_' stands for the installation
    seq           bigint NOT NULL CHECK (seq > 0),
    decision_id   uuid NOT NULL UNIQUE,
    decided_at    timestamptz NOT NULL,  -- by the clock of the service that tells of it
    recorded_at   timestamptz NOT NULL,
    service       text NOT NULL,
    actor         text NOT NULL,
    role          text,
    reason        text,
    action        text NOT NULL,
    subject       text NOT NULL,
    before        jsonb,
    after         jsonb,
    previous_hash bytea NOT NULL CHECK (octet_length(previous_hash) = 32),  -- zeros at the beginning of a chain
    hash          bytea NOT NULL CHECK (octet_length(hash) = 32),           -- see services/metrics/audit.py
    PRIMARY KEY (tenant_id, seq)
);

-- The newest first: of all, of a tenant, of somebody, of a kind.
CREATE INDEX audit_entry_by_time ON audit_entry (decided_at, decision_id);
CREATE INDEX audit_entry_by_tenant ON audit_entry (tenant_id, decided_at, decision_id);
CREATE INDEX audit_entry_by_actor ON audit_entry (actor, decided_at, decision_id);
CREATE INDEX audit_entry_by_action ON audit_entry (action, decided_at, decision_id);

-- The end of each chain: whoever appends locks it, and what is cut off at the end is missed by it.
CREATE TABLE audit_chain (
    tenant_id text PRIMARY KEY,
    seq       bigint NOT NULL CHECK (seq >= 0),
    hash      bytea NOT NULL CHECK (octet_length(hash) = 32)
) WITH (fillfactor = 70);

CREATE FUNCTION refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is only appended to' USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER audit_entry_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting();
CREATE TRIGGER audit_chain_stays BEFORE DELETE OR TRUNCATE ON audit_chain
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting();
CREATE TRIGGER audit_chain_only_grows BEFORE UPDATE ON audit_chain
    FOR EACH ROW WHEN (NEW.tenant_id <> OLD.tenant_id OR NEW.seq < OLD.seq
                       OR NEW.seq = OLD.seq AND NEW.hash <> OLD.hash)
    EXECUTE FUNCTION refuse_rewriting();
