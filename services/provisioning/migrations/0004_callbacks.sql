-- What the webhook driver has asked somebody who calls back, and what that has answered.

CREATE TABLE driver_callback (
    key            text PRIMARY KEY CHECK (key ~ '^[0-9a-f]{64}$'),
    environment_id uuid NOT NULL,
    asked_at       timestamptz NOT NULL,
    forget_at      timestamptz NOT NULL CHECK (forget_at > asked_at),
    document       jsonb CHECK (jsonb_typeof(document) = 'object')  -- the answer; null until it is there
);

CREATE INDEX driver_callback_environment_id ON driver_callback (environment_id);
CREATE INDEX driver_callback_forget_at ON driver_callback (forget_at);
