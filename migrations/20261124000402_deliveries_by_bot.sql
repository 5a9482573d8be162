-- Where ids of a lost message are looked up: those of a bot's private chats and small groups stand in one row, a supergroup's in one of
-- their own, and other bots' in others. The table holds what was sent in two days, so this takes a moment only.
CREATE INDEX deliveries_of_bot ON deliveries (split_part(chat, '/', 1), message_id) WHERE message_id IS NOT NULL;
CREATE INDEX deliveries_of_chat ON deliveries (chat, message_id) WHERE message_id IS NOT NULL;
DROP INDEX deliveries_by_message;
