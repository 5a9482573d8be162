-- no-transaction
-- To be the primary key: one over partitions has to hold what they are made by.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS usage_before_pkey ON usage (job_id, at);
