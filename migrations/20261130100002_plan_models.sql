-- Which models the users of a plan may choose, and who was told that the one they had chosen is not among them.
SELECT lock_gently('users, chats IN SHARE ROW EXCLUSIVE MODE', 'plans IN ACCESS EXCLUSIVE MODE');

-- By the names under which they are asked for; none: all that are shown.
ALTER TABLE plans ADD COLUMN models text[] NOT NULL DEFAULT '{}';

-- Each person is told once in a chat, until a model is chosen there anew.
CREATE TABLE model_notices (
    chat_id uuid NOT NULL REFERENCES chats ON DELETE CASCADE,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    -- What was chosen.
    model   text NOT NULL,
    PRIMARY KEY (chat_id, user_id, model)
);
CREATE INDEX model_notices_by_user ON model_notices (user_id);
