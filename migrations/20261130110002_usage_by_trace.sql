-- no-transaction
-- Calls are found by their trace. An index over partitions cannot be built beside those who write, so it is put together from one of
-- each month: whoever writes waits while their own month is read once, and for no other. Months that are made from now on bring theirs.
DO $$
DECLARE
    part text;
BEGIN
    CREATE INDEX IF NOT EXISTS usage_by_trace ON ONLY usage (trace_id) WHERE trace_id IS NOT NULL;
    COMMIT;
    FOR part IN
        SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'usage'::regclass AND NOT EXISTS (
            SELECT FROM pg_index x JOIN pg_inherits a ON a.inhrelid = x.indexrelid
            WHERE x.indrelid = c.oid AND a.inhparent = 'usage_by_trace'::regclass
        )
        ORDER BY 1
    LOOP
        PERFORM lock_gently(format('%I IN SHARE MODE', part));
        EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON %I (trace_id) WHERE trace_id IS NOT NULL', part || '_by_trace', part);
        EXECUTE format('ALTER INDEX usage_by_trace ATTACH PARTITION %I', part || '_by_trace');
        COMMIT;
    END LOOP;
END $$;
