-- The ledger by month. Of the table that was there all is known that partitions have to fulfil, so nothing of it is read or written.

SELECT lock_gently('users, bots, conversations, api_keys IN SHARE ROW EXCLUSIVE MODE', 'usage IN ACCESS EXCLUSIVE MODE');

-- That a call is written once is guarded by its reservation, which the same transaction deletes.
ALTER TABLE usage DROP CONSTRAINT usage_pkey, ADD PRIMARY KEY USING INDEX usage_before_pkey;
DROP INDEX usage_by_time;
ALTER INDEX usage_by_user RENAME TO usage_before_by_user;
ALTER INDEX usage_by_bot RENAME TO usage_before_by_bot;
ALTER TABLE usage RENAME TO usage_before;

CREATE TABLE usage (
    LIKE usage_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
    CONSTRAINT usage_pkey PRIMARY KEY (job_id, at),
    CONSTRAINT usage_user_id_fkey FOREIGN KEY (user_id) REFERENCES users,
    CONSTRAINT usage_bot_id_fkey FOREIGN KEY (bot_id) REFERENCES bots,
    CONSTRAINT usage_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES conversations,
    CONSTRAINT usage_api_key_id_fkey FOREIGN KEY (api_key_id) REFERENCES api_keys
) PARTITION BY RANGE (at);
CREATE INDEX usage_by_time ON usage (at, job_id);
CREATE INDEX usage_by_user ON usage (user_id, at DESC);
CREATE INDEX usage_by_bot ON usage (bot_id, at);
CREATE INDEX usage_by_key ON usage (api_key_id, at) WHERE api_key_id IS NOT NULL;
CREATE INDEX usage_by_conversation ON usage (conversation_id, at) WHERE conversation_id IS NOT NULL;
CREATE INDEX usage_failed ON usage (at, job_id) WHERE error_code IS NOT NULL;

-- Named by its last month, as the others are by their only one.
DO $$
DECLARE
    bound text := (SELECT conname FROM pg_constraint WHERE conrelid = 'usage_before'::regclass AND starts_with(conname, 'usage_until_'));
    last date := to_date(right(bound, 7), 'YYYY_MM');
    partition text := 'usage_' || right(bound, 7);
BEGIN
    EXECUTE format('ALTER TABLE usage DROP CONSTRAINT %I', bound);
    EXECUTE format('ALTER TABLE usage_before RENAME TO %I', partition);
    EXECUTE format(
        'ALTER TABLE usage ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%L)',
        partition,
        (last + interval '1 month')::timestamp AT TIME ZONE 'UTC'
    );
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', partition, bound);
END $$;

-- From the month of `first` to three months after that of `today`. What is older than the oldest month belongs to it, or was dropped.
CREATE FUNCTION ensure_usage_partitions(first date, today date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    oldest text := (SELECT min(c.relname::text) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'usage'::regclass);
    month date;
BEGIN
    FOR month IN SELECT generate_series(date_trunc('month', first), date_trunc('month', today) + interval '3 months', '1 month')::date LOOP
        CONTINUE WHEN 'usage_' || to_char(month, 'YYYY_MM') < oldest;
        EXECUTE format(
            'CREATE TABLE IF NOT EXISTS %I PARTITION OF usage FOR VALUES FROM (%L) TO (%L)',
            'usage_' || to_char(month, 'YYYY_MM'),
            month::timestamp AT TIME ZONE 'UTC',
            (month + interval '1 month')::timestamp AT TIME ZONE 'UTC'
        );
    END LOOP;
END $$;
