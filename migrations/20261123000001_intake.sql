-- Several updates that are one request, groups that become supergroups.

-- The parts of an album and the pieces of a long paste become one job: the one of the update that came first. While `gather` is
-- set, updates with the same key may still join the job; `parts` is how many updates it stands for. (A replica of the release
-- before would answer only the first part.)
ALTER TABLE jobs ADD COLUMN gather text;
ALTER TABLE jobs ADD COLUMN parts integer NOT NULL DEFAULT 1;
CREATE INDEX jobs_gathering ON jobs (lane, gather) WHERE gather IS NOT NULL AND state IN ('waiting', 'ready');
-- The job whose request the update is a part of; null: its own.
ALTER TABLE updates ADD COLUMN job_id uuid;
CREATE INDEX updates_by_job ON updates (job_id) WHERE job_id IS NOT NULL;

-- The id the chat had before it became a supergroup: what still comes under that one belongs here.
ALTER TABLE chats ADD COLUMN former_id bigint;
CREATE UNIQUE INDEX chats_by_former_id ON chats (bot_id, former_id) WHERE former_id IS NOT NULL;
