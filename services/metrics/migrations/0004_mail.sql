-- How much tenants use, by the hour; first of all the mails that they send.

INSERT INTO meter (name, unit, enforcement) VALUES
    ('mail_sends', 'recipient', 'soft'),
    ('mail_deliveries', 'recipient', 'soft'),
    ('mail_permanent_bounces', 'recipient', 'soft'),
    ('mail_transient_bounces', 'recipient', 'soft'),
    ('mail_suppressions', 'recipient', 'soft'),
    ('mail_rejects', 'recipient', 'soft'),
    ('mail_rendering_failures', 'recipient', 'soft'),
    ('mail_complaints', 'complaint', 'soft'),
    ('mail_delivery_delays', 'delay', 'soft'),
    ('mail_opens', 'open', 'soft'),
    ('mail_clicks', 'click', 'soft'),
    ('mail_subscriptions', 'change', 'soft');

-- What a tenant has used of a meter in an hour. It goes with the tenant, also where code that does not know it deletes that.
CREATE TABLE usage_hour (
    tenant_id text NOT NULL REFERENCES tracked_tenant ON DELETE CASCADE,
    meter     text NOT NULL REFERENCES meter,
    hour      timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    quantity  numeric NOT NULL,                                 -- in the meter's unit
    PRIMARY KEY (tenant_id, meter, hour)
) WITH (fillfactor = 80);

-- The places of 0001, and usage.
CREATE OR REPLACE VIEW live_record AS
SELECT tenant_id, 'tracked_tenant' AS place FROM tracked_tenant
UNION ALL
SELECT tenant_id, 'quota' FROM quota
UNION ALL
SELECT tenant_id, 'usage_hour' FROM usage_hour;
