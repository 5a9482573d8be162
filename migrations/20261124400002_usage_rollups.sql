-- The ledger summed up by hour and by day (UTC), from which pages draw. Made by the clock, never on the way of an answer. The zero id
-- stands for none. `felt` and `first_token` count the answers by their time: fewer milliseconds than each bound, and the rest last.

CREATE TABLE usage_hours (
    starts_at         timestamptz NOT NULL,
    bot_id            uuid NOT NULL,
    api_key_id        uuid NOT NULL,
    model             text NOT NULL,
    calls             bigint NOT NULL,
    failed            bigint NOT NULL,
    cache_hits        bigint NOT NULL,
    prompt_tokens     bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cached_tokens     bigint NOT NULL,
    cost              bigint NOT NULL,
    felt              bigint[] NOT NULL,
    first_token       bigint[] NOT NULL,
    PRIMARY KEY (starts_at, bot_id, api_key_id, model)
);

CREATE TABLE usage_days (LIKE usage_hours INCLUDING ALL);

-- Until when both are complete; one row, locked by whoever goes on. Null before the first time.
CREATE TABLE usage_rolled (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    until timestamptz
);
INSERT INTO usage_rolled DEFAULT VALUES;
