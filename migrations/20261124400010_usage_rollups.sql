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

-- One row, locked by whoever sums up.
CREATE TABLE usage_rolled (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- Until when both are complete, but for what came late. Null before the first time.
    until   timestamptz,
    -- Whoever writes a line from before it says so in `usage_late`. Never earlier than `until`.
    closing timestamptz CHECK (closing >= until)
);
INSERT INTO usage_rolled DEFAULT VALUES;

-- Hours to be summed up anew, once for each statement that wrote into them when they had ended: nobody waits for anybody.
CREATE TABLE usage_late (hour timestamptz NOT NULL);

-- A trigger, so that a replica of the release before notes it, too.
CREATE FUNCTION note_late_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_late (hour)
        SELECT DISTINCT date_trunc('hour', at, 'UTC') FROM written WHERE at < (SELECT closing FROM usage_rolled);
    RETURN NULL;
END $$;
CREATE TRIGGER usage_written AFTER INSERT ON usage REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION note_late_usage();

-- Drops the months before that of `first`, as far as all their lines are summed up; how many they were.
CREATE FUNCTION drop_usage_partitions(first date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    rolled timestamptz;
    old text;
    ended timestamptz;
    dropped integer := 0;
BEGIN
    -- Nobody sums up meanwhile.
    SELECT until INTO rolled FROM usage_rolled FOR UPDATE;
    FOR old IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'usage'::regclass AND c.relname < 'usage_' || to_char(first, 'YYYY_MM') ORDER BY 1
    LOOP
        ended := (to_date(right(old, 7), 'YYYY_MM') + interval '1 month')::timestamp AT TIME ZONE 'UTC';
        EXIT WHEN rolled IS NULL OR rolled < ended;
        -- Nor does anybody write: all that came late is known.
        LOCK TABLE ONLY usage IN ACCESS EXCLUSIVE MODE;
        EXIT WHEN EXISTS (SELECT FROM usage_late WHERE hour < ended);
        EXECUTE format('DROP TABLE %I', old);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;
