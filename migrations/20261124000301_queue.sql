-- Jobs that take their workers down, and bots that cannot speak.

-- How often a worker went away or panicked with the job in hand. Counted apart from attempts: whoever kills workers is given up
-- soon, while an outage elsewhere may last.
ALTER TABLE jobs ADD COLUMN crashes integer NOT NULL DEFAULT 0;

-- Telegram has refused the token: nothing of the bot is worked off until it has another. Counts only beside a fault, which the
-- release before clears without knowing of this.
ALTER TABLE bots ADD COLUMN token_refused boolean NOT NULL DEFAULT false;
