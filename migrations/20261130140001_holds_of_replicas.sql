-- Who set it aside, where that was a process with calls of other programs: of one that went away it is given back with its calls, not
-- only when they would have ended.
ALTER TABLE holds ADD COLUMN replica_id uuid;
CREATE INDEX holds_by_replica ON holds (replica_id) WHERE replica_id IS NOT NULL;
