-- Answers that are given again: which bots do so, and what the first questions of conversations are compared by.

ALTER TABLE bots
    -- Nobody's answers, those of the same user, or those of everybody who talks to the bot.
    ADD COLUMN cache text NOT NULL DEFAULT 'off' CHECK (cache IN ('off', 'user', 'shared')),
    ADD COLUMN cache_seconds integer NOT NULL DEFAULT 3600 CHECK (cache_seconds BETWEEN 60 AND 2592000),
    -- The embedding model by which similar questions are found; null: only equal ones count.
    ADD COLUMN cache_similar_by text CHECK (cache_similar_by <> ''),
    -- From which likeness on they do, in thousandths of the cosine.
    ADD COLUMN cache_similar_from integer NOT NULL DEFAULT 950 CHECK (cache_similar_from BETWEEN 500 AND 1000);

-- Answers to first questions. Replicas hold the vectors in memory, newest first, and compare them there.
CREATE TABLE similar_answers (
    id         uuid PRIMARY KEY,
    bot_id     uuid NOT NULL REFERENCES bots,
    -- A hash of all that made the answer but the question: who shares it, persona, models, lifetime.
    space      bytea NOT NULL CHECK (length(space) = 32),
    user_id    uuid NOT NULL REFERENCES users,
    question   text NOT NULL,
    -- Little-endian floats of unit length together.
    vector     bytea NOT NULL CHECK (length(vector) > 0 AND length(vector) % 4 = 0),
    answer     text NOT NULL,
    provider   text NOT NULL,
    model_id   uuid,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX similar_answers_by_space ON similar_answers (space, created_at DESC);
CREATE INDEX similar_answers_by_bot ON similar_answers (bot_id, created_at DESC);
CREATE INDEX similar_answers_by_end ON similar_answers (expires_at);

-- What was asked and what came nearest, so that staff can see where the likeness should begin.
CREATE TABLE similar_looks (
    id       uuid PRIMARY KEY,
    bot_id   uuid NOT NULL REFERENCES bots,
    at       timestamptz NOT NULL,
    user_id  uuid NOT NULL REFERENCES users,
    question text NOT NULL,
    -- Whose the nearest question was, and how it went.
    near_user_id  uuid NOT NULL REFERENCES users,
    near_question text NOT NULL,
    -- In thousandths.
    likeness integer NOT NULL CHECK (likeness BETWEEN 0 AND 1000),
    hit      boolean NOT NULL
);
CREATE INDEX similar_looks_by_bot ON similar_looks (bot_id, at DESC, id DESC);
