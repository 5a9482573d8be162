-- no-transaction
-- What a program called.
CREATE INDEX CONCURRENTLY IF NOT EXISTS usage_before_by_key ON usage (api_key_id, at) WHERE api_key_id IS NOT NULL;
