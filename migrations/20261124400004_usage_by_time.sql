-- no-transaction
-- The log of requests goes through calls of one moment by their ids.
CREATE INDEX CONCURRENTLY IF NOT EXISTS usage_before_by_time ON usage (at, job_id);
