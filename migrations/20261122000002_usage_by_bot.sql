-- The list of bots counts the day's answers of each.
CREATE INDEX usage_by_bot ON usage (bot_id, at);
