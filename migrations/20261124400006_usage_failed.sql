-- no-transaction
-- What failed, of which there is little.
CREATE INDEX CONCURRENTLY IF NOT EXISTS usage_before_failed ON usage (at, job_id) WHERE error_code IS NOT NULL;
