-- What is used of quotas, and that a limit is near or reached.

-- What a tenant has used of a meter that it has a quota of, in a calendar month of its time zone: what the month's hours
-- come to as the meter aggregates them. It can be made anew from those at any time, by whoever finds none; who corrects
-- hours deletes it. Only meters that events feed have it: code that does not know it adds to all others.
CREATE TABLE quota_use (
    tenant_id  text NOT NULL,
    meter      text NOT NULL,
    month      date NOT NULL CHECK (extract(day FROM month) = 1),
    used       numeric,      -- null: nothing yet
    latest_at  timestamptz,  -- as in usage_hour
    latest_key bytea,
    PRIMARY KEY (tenant_id, meter, month),
    FOREIGN KEY (tenant_id, meter) REFERENCES quota ON DELETE CASCADE
) WITH (fillfactor = 50);

-- The different values of such a month, of meters that count those.
CREATE TABLE quota_value (
    tenant_id text NOT NULL,
    meter     text NOT NULL,
    month     date NOT NULL,
    value     bytea NOT NULL CHECK (octet_length(value) = 16),  -- usage_value.value
    PRIMARY KEY (tenant_id, meter, month, value),
    FOREIGN KEY (tenant_id, meter, month) REFERENCES quota_use ON DELETE CASCADE
);

-- That so much of a limit was used in a month has been told; each is told once.
CREATE TABLE quota_crossing (
    tenant_id   text NOT NULL REFERENCES tracked_tenant ON DELETE CASCADE,
    meter       text NOT NULL,
    month       date NOT NULL CHECK (extract(day FROM month) = 1),
    limit_value bigint NOT NULL,
    percent     integer NOT NULL,
    used        numeric NOT NULL,
    crossed_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, meter, month, limit_value, percent)
);

-- What the hours of a month come to; no row for a meter that is not in the catalog, null for nothing.
CREATE FUNCTION usage_of_month(of_tenant text, of_meter text, of_month date, zone text)
RETURNS TABLE (used numeric, latest_at timestamptz, latest_key bytea) LANGUAGE sql STABLE AS $$
    SELECT CASE meter.aggregation
            WHEN 'latest' THEN latest.quantity
            WHEN 'unique' THEN (
                SELECT nullif(count(DISTINCT value), 0) FROM usage_value
                WHERE tenant_id = of_tenant AND meter = of_meter AND hour >= bounds.since AND hour < bounds.until
                  AND dimensions = '{}'
            )
            WHEN 'max' THEN (
                SELECT max(quantity) FROM usage_hour
                WHERE tenant_id = of_tenant AND meter = of_meter AND hour >= bounds.since AND hour < bounds.until
            )
            ELSE (
                SELECT sum(quantity) FROM usage_hour
                WHERE tenant_id = of_tenant AND meter = of_meter AND hour >= bounds.since AND hour < bounds.until
            )
        END, latest.latest_at, latest.latest_key
    FROM meter
    CROSS JOIN LATERAL (
        SELECT of_month::timestamp AT TIME ZONE zone, (of_month + interval '1 month') AT TIME ZONE zone
    ) AS bounds (since, until)
    LEFT JOIN LATERAL (
        SELECT hour.quantity, hour.latest_at, hour.latest_key FROM usage_hour AS hour
        WHERE hour.tenant_id = of_tenant AND hour.meter = of_meter
          AND hour.hour >= bounds.since AND hour.hour < bounds.until AND meter.aggregation = 'latest'
        ORDER BY hour.latest_at DESC, hour.latest_key DESC LIMIT 1
    ) AS latest ON true
    WHERE meter.name = of_meter
$$;

-- The places of 0005, and those of quotas.
CREATE OR REPLACE VIEW live_record AS
SELECT tenant_id, 'tracked_tenant' AS place FROM tracked_tenant
UNION ALL
SELECT tenant_id, 'quota' FROM quota
UNION ALL
SELECT tenant_id, 'usage_hour' FROM usage_hour
UNION ALL
SELECT tenant_id, 'usage_event' FROM usage_event
UNION ALL
SELECT tenant_id, 'usage_key' FROM usage_key
UNION ALL
SELECT tenant_id, 'usage_dimension_hour' FROM usage_dimension_hour
UNION ALL
SELECT tenant_id, 'usage_value' FROM usage_value
UNION ALL
SELECT tenant_id, 'usage_amendment' FROM usage_amendment
UNION ALL
SELECT tenant_id, 'quota_use' FROM quota_use
UNION ALL
SELECT tenant_id, 'quota_value' FROM quota_value
UNION ALL
SELECT tenant_id, 'quota_crossing' FROM quota_crossing;
