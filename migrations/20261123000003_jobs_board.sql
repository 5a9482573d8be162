-- What the jobs and bots pages show and change.

-- When the attempt in hand began; null while none runs, and for jobs that a replica of the release before has taken.
ALTER TABLE jobs ADD COLUMN claimed_at timestamptz;
-- A dead letter that staff gave up. `finished_at` goes on saying when it died.
ALTER TABLE jobs ADD COLUMN discarded_at timestamptz;
-- Every row fits the narrower check that was in force until now, so none has to be looked at again under the table's lock.
ALTER TABLE jobs DROP CONSTRAINT jobs_state_check;
ALTER TABLE jobs ADD CONSTRAINT jobs_state_check
    CHECK (state IN ('waiting', 'ready', 'running', 'done', 'dead', 'discarded')) NOT VALID;
-- Dead and discarded ones, newest first.
CREATE INDEX jobs_given_up ON jobs (finished_at DESC, id DESC) WHERE state IN ('dead', 'discarded');

-- Raised when staff want the intake of a bot started anew; a listener that was started with another number ends.
ALTER TABLE bots ADD COLUMN restarts integer NOT NULL DEFAULT 0;
-- What Telegram still holds back for the bot, and when it said so.
ALTER TABLE bots ADD COLUMN pending_updates bigint CHECK (pending_updates >= 0);
ALTER TABLE bots ADD COLUMN pending_at timestamptz;

-- How often Telegram asked a bot to wait (429), by minute; kept for a day.
CREATE TABLE flood_waits (
    bot_id uuid NOT NULL REFERENCES bots ON DELETE CASCADE,
    minute timestamptz NOT NULL,
    waits  bigint NOT NULL CHECK (waits > 0),
    PRIMARY KEY (bot_id, minute)
);
