-- The first schema. Ids are UUIDv7 made by the program, money is integer nano-dollars, all times are timestamptz.

-- Staff -----------------------------------------------------------------------------------------------------------------

CREATE TABLE staff (
    id            uuid PRIMARY KEY,
    email         text NOT NULL UNIQUE CHECK (email = lower(email)),
    name          text NOT NULL CHECK (name <> ''),
    role          text NOT NULL CHECK (role IN ('owner', 'admin', 'support', 'viewer')),
    password_hash text NOT NULL,
    created_at    timestamptz NOT NULL,
    disabled_at   timestamptz
);

-- One-time links by which the first owner is made. Only the hash is kept.
CREATE TABLE setup_tokens (
    token_hash bytea PRIMARY KEY,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);

CREATE TABLE sessions (
    id         text PRIMARY KEY,
    data       jsonb NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- Failed sign-ins by address and by name, for throttling; in Postgres so that it holds without Redis.
CREATE TABLE sign_in_failures (
    key      text PRIMARY KEY,
    failures integer NOT NULL CHECK (failures > 0),
    last_at  timestamptz NOT NULL
);

-- Plans and limits ------------------------------------------------------------------------------------------------------

CREATE TABLE plans (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    is_default boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX plans_by_name ON plans (lower(name));
CREATE UNIQUE INDEX plans_one_default ON plans (is_default) WHERE is_default;

-- No row is no limit; 0 lets nothing through.
CREATE TABLE limits (
    plan_id uuid NOT NULL REFERENCES plans ON DELETE CASCADE,
    measure text NOT NULL CHECK (measure IN ('messages', 'tokens', 'money')),
    period  text NOT NULL CHECK (period IN ('minute', 'day', 'month')),
    amount  bigint NOT NULL CHECK (amount >= 0),
    PRIMARY KEY (plan_id, measure, period)
);

-- Bots, people, places --------------------------------------------------------------------------------------------------

CREATE TABLE bots (
    id             uuid PRIMARY KEY,
    transport      text NOT NULL CHECK (transport IN ('telegram', 'browser')),
    name           text NOT NULL,
    username       text,
    telegram_id    bigint UNIQUE,
    mode           text NOT NULL DEFAULT 'polling' CHECK (mode IN ('polling', 'webhook')),
    enabled        boolean NOT NULL DEFAULT true,
    -- XChaCha20-Poly1305: 24 bytes of nonce, then the sealed token; the key is named by its id.
    token_cipher   bytea,
    token_key_id   text,
    persona        text NOT NULL DEFAULT '',
    model          text,
    -- Why it does not run, in words for staff.
    fault          text,
    -- Which replica polls (or has registered the webhook), and until when it may.
    lease_holder   text,
    lease_until    timestamptz,
    last_update_at timestamptz,
    created_at     timestamptz NOT NULL,
    CHECK ((transport = 'telegram') = (telegram_id IS NOT NULL)),
    CHECK ((transport = 'telegram') = (token_cipher IS NOT NULL AND token_key_id IS NOT NULL))
);

CREATE TABLE users (
    id             uuid PRIMARY KEY,
    transport      text NOT NULL CHECK (transport IN ('telegram', 'browser')),
    -- Telegram's user id, or a number of our own for people of the playground.
    external_id    bigint NOT NULL,
    -- The member of staff for whom this playground user stands.
    staff_id       uuid UNIQUE REFERENCES staff,
    name           text NOT NULL,
    username       text,
    language       text,
    plan_id        uuid NOT NULL REFERENCES plans,
    blocked_at     timestamptz,
    blocked_reason text,
    blocked_by     text,
    created_at     timestamptz NOT NULL,
    last_seen_at   timestamptz NOT NULL,
    UNIQUE (transport, external_id),
    CHECK ((blocked_at IS NULL) = (blocked_reason IS NULL))
);
CREATE SEQUENCE browser_user_ids;
CREATE INDEX users_by_last_seen ON users (last_seen_at DESC, id DESC);
CREATE INDEX users_by_plan ON users (plan_id);
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE INDEX users_by_words ON users USING gin ((lower(name || ' ' || coalesce(username, ''))) gin_trgm_ops);

CREATE TABLE chats (
    id          uuid PRIMARY KEY,
    bot_id      uuid NOT NULL REFERENCES bots,
    external_id bigint NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('private', 'group', 'supergroup', 'channel', 'browser')),
    title       text NOT NULL,
    -- The user has blocked the bot, or the bot was thrown out: nothing is sent there.
    closed_at   timestamptz,
    created_at  timestamptz NOT NULL,
    UNIQUE (bot_id, external_id)
);

-- What one model sees as its history: a chat and topic since the last /new.
CREATE TABLE conversations (
    id         uuid PRIMARY KEY,
    chat_id    uuid NOT NULL REFERENCES chats,
    thread_id  bigint NOT NULL DEFAULT 0,
    user_id    uuid NOT NULL REFERENCES users,
    model      text,
    started_at timestamptz NOT NULL,
    last_at    timestamptz NOT NULL,
    ended_at   timestamptz
);
CREATE UNIQUE INDEX conversations_one_current ON conversations (chat_id, thread_id) WHERE ended_at IS NULL;
CREATE INDEX conversations_by_user ON conversations (user_id, last_at DESC);

CREATE TABLE messages (
    id              uuid NOT NULL,
    created_at      timestamptz NOT NULL,
    conversation_id uuid NOT NULL REFERENCES conversations,
    author          text NOT NULL CHECK (author IN ('user', 'bot')),
    text            text NOT NULL,
    -- Estimated size in the model's context.
    tokens          integer NOT NULL CHECK (tokens >= 0),
    -- False for refusals, failures and commands: the model never sees them.
    in_context      boolean NOT NULL,
    -- The job that made it: joins an answer with its usage and its errors.
    job_id          uuid NOT NULL,
    error_code      text,
    error_cause     text,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE INDEX messages_by_conversation ON messages (conversation_id, created_at DESC, id DESC);
CREATE INDEX messages_by_time ON messages (created_at) WHERE author = 'user';

-- Makes the partitions from this month to three months ahead; called at every start and once a day.
CREATE FUNCTION ensure_message_partitions(today date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    month date;
BEGIN
    FOR month IN SELECT generate_series(date_trunc('month', today), date_trunc('month', today) + interval '3 months', '1 month')::date LOOP
        EXECUTE format(
            'CREATE TABLE IF NOT EXISTS %I PARTITION OF messages FOR VALUES FROM (%L) TO (%L)',
            'messages_' || to_char(month, 'YYYY_MM'),
            month::timestamp AT TIME ZONE 'UTC',
            (month + interval '1 month')::timestamp AT TIME ZONE 'UTC'
        );
    END LOOP;
END $$;

-- Work ------------------------------------------------------------------------------------------------------------------

-- Every update as it arrived. Kinds that nobody handles are kept as well.
CREATE TABLE updates (
    id          uuid PRIMARY KEY,
    bot_id      uuid NOT NULL REFERENCES bots,
    update_id   bigint NOT NULL,
    kind        text NOT NULL,
    -- Of the message it brings, if it does.
    message_id  bigint,
    payload     jsonb NOT NULL,
    received_at timestamptz NOT NULL,
    UNIQUE (bot_id, update_id)
);
CREATE INDEX updates_by_message ON updates (bot_id, message_id) WHERE message_id IS NOT NULL;

-- Durable work. Jobs of one lane run one after another in the order of `seq`: at most one of them is ready or running,
-- the others wait and are promoted by the one that ends. A job without a lane overtakes.
CREATE TABLE jobs (
    id               uuid PRIMARY KEY,
    seq              bigint GENERATED ALWAYS AS IDENTITY,
    kind             text NOT NULL,
    lane             text,
    payload          jsonb NOT NULL,
    priority         smallint NOT NULL DEFAULT 5,
    state            text NOT NULL CHECK (state IN ('waiting', 'ready', 'running', 'done', 'dead')),
    run_at           timestamptz NOT NULL DEFAULT now(),
    attempts         integer NOT NULL DEFAULT 0,
    max_attempts     integer NOT NULL DEFAULT 25 CHECK (max_attempts > 0),
    -- Fencing: whoever holds the token may finish the job; a worker that lost its lease may not.
    lease_token      uuid,
    lease_until      timestamptz,
    worker           text,
    cancel_requested boolean NOT NULL DEFAULT false,
    last_error       text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    finished_at      timestamptz,
    CHECK ((state = 'running') = (lease_token IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX jobs_ready ON jobs (priority, run_at, seq) WHERE state = 'ready';
CREATE INDEX jobs_open_by_lane ON jobs (lane, seq) WHERE state IN ('waiting', 'ready', 'running') AND lane IS NOT NULL;
-- Depth and age of the queue.
CREATE INDEX jobs_open ON jobs (created_at) INCLUDE (state) WHERE state IN ('waiting', 'ready', 'running');
CREATE INDEX jobs_running ON jobs (lease_until) WHERE state = 'running';
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE state = 'done';
CREATE INDEX jobs_dead ON jobs (seq) WHERE state = 'dead';

-- The messages by which a job answers. A row stands here before anything is sent, and gets its message id afterwards; a
-- retry finds rows without an id and looks in the chat whether they had arrived.
CREATE TABLE deliveries (
    job_id     uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    part       integer NOT NULL CHECK (part >= 0),
    -- Bot and chat, so that a lost message is not taken for one of another job.
    chat       text NOT NULL,
    -- Null while only a preview of the answer stands there.
    body       jsonb,
    message_id bigint,
    PRIMARY KEY (job_id, part)
);
CREATE INDEX deliveries_by_message ON deliveries (message_id) WHERE message_id IS NOT NULL;

-- Limits in use ---------------------------------------------------------------------------------------------------------

CREATE TABLE counters (
    user_id   uuid NOT NULL REFERENCES users,
    measure   text NOT NULL CHECK (measure IN ('messages', 'tokens', 'money')),
    period    text NOT NULL CHECK (period IN ('day', 'month')),
    starts_at timestamptz NOT NULL,
    used      bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    reserved  bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    -- The limit in force when it was last reserved from; null is none.
    cap       bigint CHECK (cap >= 0),
    PRIMARY KEY (user_id, measure, period, starts_at)
) WITH (fillfactor = 70);

-- What a running job has set aside; its columns say from which windows.
CREATE TABLE reservations (
    job_id     uuid PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES users,
    day        timestamptz NOT NULL,
    month      timestamptz NOT NULL,
    messages   bigint NOT NULL CHECK (messages >= 0),
    tokens     bigint NOT NULL CHECK (tokens >= 0),
    money      bigint NOT NULL CHECK (money >= 0),
    created_at timestamptz NOT NULL
);
CREATE INDEX reservations_by_age ON reservations (created_at);

-- The ledger: one row for each answer that a model was asked for, written once together with the answer.
CREATE TABLE usage (
    job_id            uuid PRIMARY KEY,
    at                timestamptz NOT NULL,
    user_id           uuid NOT NULL REFERENCES users,
    bot_id            uuid NOT NULL REFERENCES bots,
    conversation_id   uuid NOT NULL REFERENCES conversations,
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
    felt_ms           bigint NOT NULL
);
CREATE INDEX usage_by_time ON usage (at);
CREATE INDEX usage_by_user ON usage (user_id, at DESC);

-- Failures that people met.
CREATE TABLE errors (
    id              uuid PRIMARY KEY,
    at              timestamptz NOT NULL,
    code            text NOT NULL,
    cause           text,
    user_id         uuid REFERENCES users,
    bot_id          uuid REFERENCES bots,
    conversation_id uuid REFERENCES conversations,
    job_id          uuid
);
CREATE INDEX errors_by_time ON errors (at);
CREATE INDEX errors_by_user ON errors (user_id, at DESC);

-- The playground --------------------------------------------------------------------------------------------------------

-- What a browser shows of a chat with a bot of transport "browser"; the id is the message id.
CREATE TABLE browser_messages (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bot_id   uuid NOT NULL REFERENCES bots,
    chat_id  bigint NOT NULL,
    author   text NOT NULL CHECK (author IN ('user', 'bot')),
    body     jsonb NOT NULL,
    complete boolean NOT NULL,
    -- Rises with every change, so that a reader can ask for what is new.
    revision bigint NOT NULL,
    at       timestamptz NOT NULL
);
CREATE SEQUENCE browser_revisions;
CREATE INDEX browser_messages_by_chat ON browser_messages (bot_id, chat_id, revision);

-- The audit trail -------------------------------------------------------------------------------------------------------

-- Each row carries a keyed hash over itself and the hash before it: an edited, removed or inserted row breaks the chain.
CREATE TABLE audit (
    id          bigint PRIMARY KEY,
    at          timestamptz NOT NULL,
    staff_id    uuid REFERENCES staff,
    actor       text NOT NULL,
    action      text NOT NULL,
    target_kind text NOT NULL,
    target_id   text NOT NULL,
    target_name text NOT NULL,
    before      jsonb,
    after       jsonb,
    ip          text,
    request_id  text,
    key_id      text NOT NULL,
    hash        bytea NOT NULL CHECK (length(hash) = 32)
);
CREATE INDEX audit_by_target ON audit (target_kind, target_id, id DESC);
CREATE INDEX audit_by_action ON audit (action text_pattern_ops, id DESC);
CREATE INDEX audit_by_actor ON audit USING gin (lower(actor) gin_trgm_ops);

-- The end of the chain; one row, locked by whoever appends.
CREATE TABLE audit_head (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    id   bigint NOT NULL,
    hash bytea NOT NULL
);
INSERT INTO audit_head (id, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

-- What every deployment starts with ---------------------------------------------------------------------------------------

INSERT INTO plans (id, name, is_default, created_at) VALUES
    ('01930000-0000-7000-8000-000000000001', 'free', true, now()),
    ('01930000-0000-7000-8000-000000000002', 'plus', false, now()),
    ('01930000-0000-7000-8000-000000000003', 'unlimited', false, now());
INSERT INTO limits (plan_id, measure, period, amount) VALUES
    ('01930000-0000-7000-8000-000000000001', 'messages', 'minute', 20),
    ('01930000-0000-7000-8000-000000000001', 'messages', 'day', 200),
    ('01930000-0000-7000-8000-000000000001', 'tokens', 'day', 200000),
    ('01930000-0000-7000-8000-000000000001', 'money', 'month', 2000000000),
    ('01930000-0000-7000-8000-000000000002', 'messages', 'minute', 60),
    ('01930000-0000-7000-8000-000000000002', 'messages', 'day', 2000),
    ('01930000-0000-7000-8000-000000000002', 'tokens', 'day', 2000000),
    ('01930000-0000-7000-8000-000000000002', 'money', 'month', 20000000000);

INSERT INTO bots (id, transport, name, enabled, created_at) VALUES
    ('01930000-0000-7000-8000-0000000000b0', 'browser', 'Playground', true, now());
