-- Who said what in a group, and whose words staff have read.

-- Who wrote the message; null for the bot, and for what a release before has kept: there the ledger knows, where a model was asked.
ALTER TABLE messages ADD COLUMN user_id uuid REFERENCES users;

-- Who has written in a conversation beside the person it began with.
CREATE TABLE participants (
    user_id         uuid NOT NULL REFERENCES users,
    conversation_id uuid NOT NULL REFERENCES conversations,
    PRIMARY KEY (user_id, conversation_id)
);
INSERT INTO participants (user_id, conversation_id)
    SELECT said.user_id, said.conversation_id
    FROM (SELECT user_id, conversation_id FROM usage UNION SELECT user_id, conversation_id FROM errors) AS said
    JOIN conversations v ON v.id = said.conversation_id AND v.user_id <> said.user_id;

-- What a person's page and the trail's filter look for: readings by the people whose words were shown, names, days.
CREATE INDEX audit_readings ON audit USING gin (after jsonb_path_ops) WHERE action = 'conversation.read';
CREATE INDEX audit_by_target_name ON audit USING gin (lower(target_name) gin_trgm_ops);
CREATE INDEX audit_by_time ON audit (at, id);
