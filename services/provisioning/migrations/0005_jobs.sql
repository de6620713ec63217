-- Environments of every isolation and driver, and the jobs that make, change and remove them.

ALTER TABLE environment
    DROP CONSTRAINT environment_isolation_check,
    ADD CONSTRAINT environment_isolation_check CHECK (isolation IN ('pool', 'bridge', 'silo')),
    ADD COLUMN driver     text NOT NULL DEFAULT 'postgres',
    ADD COLUMN parameters jsonb NOT NULL DEFAULT '{}',  -- what the tier and products say for the driver
    ADD COLUMN resources  jsonb NOT NULL DEFAULT '{}',  -- what the driver has made so far, in its own words
    -- Code of the release before reads `state` and knows 'ready' alone; it never reads this.
    --   provisioning  a job is making it                                    -> ready, removing
    --   ready         a tenant can use it                                   -> moving, removing
    --   moving        a job is carrying it elsewhere; it can be used until  -> ready, removing
    --                 the last moment
    --   removing      a job is taking it away                               final
    ADD COLUMN status text NOT NULL DEFAULT 'ready' CHECK (status IN ('provisioning', 'ready', 'moving', 'removing'));

-- What was asked for and is not done yet, and what was done and may still be taken back.
--
--   running  on the way to what was asked for             -> done, failing, undoing; gone where nothing could be undone
--   done     it was changed; `found` says from what       -> undoing; gone with the tenant's next workflow
--   failing  it cannot be done; on the way back           -> undoing; gone, answered with the failure
--   undoing  it was taken back; on the way back             gone, answered
CREATE TABLE job (
    job_id      uuid PRIMARY KEY,
    turn        uuid NOT NULL,                 -- of one tenant's jobs, the lowest is worked on first
    tenant_id   text NOT NULL,
    workflow_id uuid NOT NULL,
    step        text NOT NULL,
    ask_id      uuid NOT NULL,                 -- the message that is answered in the end
    operation   text NOT NULL CHECK (operation IN
                    ('provision', 'move', 'throttle', 'release', 'deploy', 'export', 'remove')),
    lane        text NOT NULL,                 -- whose turn it is: the driver and what is asked of it
    wanted      jsonb NOT NULL,                -- settings of the environment that are asked for
    found       jsonb,                         -- what they were before, as soon as they are others
    state       text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'failing', 'undoing')),
    stage       text NOT NULL DEFAULT '',      -- the driver's next step, on the way there or back
    notes       jsonb NOT NULL DEFAULT '{}',   -- what the driver's steps have noted
    failure     jsonb,                         -- why it is failing: a code and a sentence
    attempts    integer NOT NULL DEFAULT 0,    -- that this stage has been begun
    due_at      timestamptz,                   -- when a worker may take it; of a claimed one, when its claim ends
    claim       uuid,                          -- the worker's hold on it; whoever has another one has lost it
    said        text,                          -- what has been reached, for people
    told_at     timestamptz NOT NULL,          -- when whoever waits has heard of it last
    UNIQUE (workflow_id, step),
    CHECK ((due_at IS NULL) = (state = 'done')),
    CHECK ((failure IS NOT NULL) = (state = 'failing') OR state = 'undoing')
);

CREATE INDEX job_lane_due_at ON job (lane, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX job_told_at ON job (told_at) WHERE due_at IS NOT NULL;
CREATE INDEX job_tenant_id ON job (tenant_id, turn);

-- The places of 0001 and 0002, and the jobs: none is left of a tenant that is gone.
CREATE OR REPLACE VIEW live_record AS
    SELECT tenant_id, 'environment' AS place FROM environment
    UNION ALL
    SELECT tenant_id, 'deployment' FROM deployment
    UNION ALL
    SELECT tenant_id, 'job' FROM job;
