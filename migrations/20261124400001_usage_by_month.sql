-- The ledger by month, so that what is old is dropped whole; calls of other programs stand in it as well, and each says what it was
-- billed at and which way it took. The columns that were there stay as they are: a replica of the release before goes on writing.

ALTER TABLE usage RENAME TO usage_before;
-- Their names are wanted for the new ones.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT conname FROM pg_constraint WHERE conrelid = 'usage_before'::regclass LOOP
        EXECUTE format('ALTER TABLE usage_before RENAME CONSTRAINT %I TO %I', name, name || '_before');
    END LOOP;
END $$;

CREATE TABLE usage (
    -- The job, or the call of another program.
    job_id            uuid NOT NULL,
    at                timestamptz NOT NULL,
    -- Null where another program called.
    user_id           uuid REFERENCES users,
    bot_id            uuid REFERENCES bots,
    conversation_id   uuid REFERENCES conversations,
    provider          text NOT NULL,
    model             text NOT NULL,
    prompt_tokens     bigint NOT NULL CHECK (prompt_tokens >= 0),
    completion_tokens bigint NOT NULL CHECK (completion_tokens >= 0),
    cached_tokens     bigint NOT NULL CHECK (cached_tokens >= 0),
    -- False: estimated, since the provider did not say.
    reported          boolean NOT NULL,
    cost              bigint NOT NULL CHECK (cost >= 0),
    attempts          integer NOT NULL,
    finish            text NOT NULL,
    first_token_ms    bigint,
    total_ms          bigint NOT NULL,
    -- From the arrival of the message to the end of the answer, as the user felt it.
    felt_ms           bigint NOT NULL,
    -- What follows is null in rows that a release before has written.
    api_key_id        uuid,
    -- The name that was asked for; `model` is the provider's.
    alias             text,
    provider_id       uuid,
    model_id          uuid,
    -- Nano-dollars per million tokens, as billed.
    input_price       bigint CHECK (input_price >= 0),
    cached_price      bigint CHECK (cached_price >= 0),
    output_price      bigint CHECK (output_price >= 0),
    reasoning_tokens  bigint CHECK (reasoning_tokens >= 0),
    images            bigint CHECK (images >= 0),
    -- Who was asked, in order: [{provider, model, code, status, ms}].
    tries             jsonb,
    -- '' (none), 'exact' or 'semantic'.
    cache             text NOT NULL DEFAULT '',
    error_code        text,
    http_status       integer
) PARTITION BY RANGE (at);

-- From the month of `first` to three months after that of `today`.
CREATE FUNCTION ensure_usage_partitions(first date, today date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    month date;
BEGIN
    FOR month IN SELECT generate_series(date_trunc('month', first), date_trunc('month', today) + interval '3 months', '1 month')::date LOOP
        EXECUTE format(
            'CREATE TABLE IF NOT EXISTS %I PARTITION OF usage FOR VALUES FROM (%L) TO (%L)',
            'usage_' || to_char(month, 'YYYY_MM'),
            month::timestamp AT TIME ZONE 'UTC',
            (month + interval '1 month')::timestamp AT TIME ZONE 'UTC'
        );
    END LOOP;
END $$;

-- Drops the months before that of `first`; how many they were.
CREATE FUNCTION drop_usage_partitions(first date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    old text;
    dropped integer := 0;
BEGIN
    FOR old IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'usage'::regclass AND c.relname < 'usage_' || to_char(first, 'YYYY_MM') ORDER BY 1
    LOOP
        EXECUTE format('DROP TABLE %I', old);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;

SELECT ensure_usage_partitions(
    least((SELECT min(at) AT TIME ZONE 'UTC' FROM usage_before)::date, (now() AT TIME ZONE 'UTC')::date - 31),
    (now() AT TIME ZONE 'UTC')::date
);

INSERT INTO usage (job_id, at, user_id, bot_id, conversation_id, provider, model, prompt_tokens, completion_tokens, cached_tokens,
                   reported, cost, attempts, finish, first_token_ms, total_ms, felt_ms)
    SELECT job_id, at, user_id, bot_id, conversation_id, provider, model, prompt_tokens, completion_tokens, cached_tokens,
           reported, cost, attempts, finish, first_token_ms, total_ms, felt_ms
    FROM usage_before;
DROP TABLE usage_before;

-- A key over partitions has to hold what they are made by. That a call is written once is guarded by its reservation, which the same
-- transaction deletes.
ALTER TABLE usage ADD PRIMARY KEY (job_id, at);
CREATE INDEX usage_by_time ON usage (at, job_id);
CREATE INDEX usage_by_user ON usage (user_id, at DESC);
CREATE INDEX usage_by_bot ON usage (bot_id, at);
CREATE INDEX usage_by_key ON usage (api_key_id, at) WHERE api_key_id IS NOT NULL;
CREATE INDEX usage_failed ON usage (at, job_id) WHERE error_code IS NOT NULL;
