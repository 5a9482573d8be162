-- Limits on images, per minute and in total, and on more than plans: a user, a bot, an API key, a model, the whole deployment.
-- What the release before counts stays where it is (`limits`, `counters`, `reservations`); all that is new has tables of its own.

-- Where a plan's days and months begin, and how much of a limit may be used before staff is told.
ALTER TABLE plans
    ADD COLUMN zone text NOT NULL DEFAULT 'UTC',
    ADD COLUMN soft_percent smallint NOT NULL DEFAULT 80 CHECK (soft_percent BETWEEN 1 AND 100);

-- Looser than before, so what is there need not be read again. The release before leaves kinds out that it does not know.
ALTER TABLE limits
    DROP CONSTRAINT limits_measure_check,
    DROP CONSTRAINT limits_period_check,
    ADD CONSTRAINT limits_measure_check CHECK (measure IN ('messages', 'tokens', 'money', 'images')) NOT VALID,
    ADD CONSTRAINT limits_period_check CHECK (period IN ('minute', 'day', 'month', 'total')) NOT VALID;

-- No row is no limit; 0 lets nothing through.
CREATE TABLE scope_limits (
    scope        text NOT NULL CHECK (scope IN ('user', 'api_key', 'bot', 'model', 'deployment')),
    -- An id, the name of a model, or nothing for the deployment.
    subject      text NOT NULL CHECK ((subject = '') = (scope = 'deployment')),
    measure      text NOT NULL CHECK (measure IN ('messages', 'tokens', 'money', 'images')),
    period       text NOT NULL CHECK (period IN ('minute', 'day', 'month', 'total')),
    amount       bigint NOT NULL CHECK (amount >= 0),
    zone         text NOT NULL DEFAULT 'UTC',
    soft_percent smallint NOT NULL DEFAULT 80 CHECK (soft_percent BETWEEN 1 AND 100),
    PRIMARY KEY (scope, subject, measure, period)
);

-- For a while a user may have more than plan and own limit allow.
CREATE TABLE limit_boosts (
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    measure text NOT NULL CHECK (measure IN ('messages', 'tokens', 'money', 'images')),
    period  text NOT NULL CHECK (period IN ('minute', 'day', 'month', 'total')),
    amount  bigint NOT NULL CHECK (amount >= 0),
    until   timestamptz NOT NULL,
    PRIMARY KEY (user_id, measure, period)
);

-- Limits in use, for all but the three windows of a user that `counters` holds. They exist only where there is a limit.
CREATE TABLE scope_counters (
    scope     text NOT NULL,
    subject   text NOT NULL,
    measure   text NOT NULL,
    period    text NOT NULL,
    starts_at timestamptz NOT NULL,
    used      bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    reserved  bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    cap       bigint CHECK (cap >= 0),
    -- The amount from which staff is told.
    soft      bigint,
    PRIMARY KEY (scope, subject, measure, period, starts_at)
) WITH (fillfactor = 70);

ALTER TABLE counters ADD COLUMN soft bigint;

-- What a running call has set aside of `scope_counters`: the arrays belong together, one place for each window.
CREATE TABLE holds (
    call_id    uuid PRIMARY KEY,
    scopes     text[] NOT NULL,
    subjects   text[] NOT NULL,
    measures   text[] NOT NULL,
    periods    text[] NOT NULL,
    starts     timestamptz[] NOT NULL,
    amounts    bigint[] NOT NULL,
    created_at timestamptz NOT NULL,
    -- When it is given back by itself; null for what a job has set aside, which ends with the job.
    expires_at timestamptz
);
CREATE INDEX holds_by_age ON holds (created_at);

-- A soft threshold was passed: told once for each window.
CREATE TABLE limit_events (
    scope     text NOT NULL,
    subject   text NOT NULL,
    measure   text NOT NULL,
    period    text NOT NULL,
    starts_at timestamptz NOT NULL,
    at        timestamptz NOT NULL,
    used      bigint NOT NULL,
    cap       bigint NOT NULL,
    PRIMARY KEY (scope, subject, measure, period, starts_at)
);
CREATE INDEX limit_events_by_time ON limit_events (at DESC);
