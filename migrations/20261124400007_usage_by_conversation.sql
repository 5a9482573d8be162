-- no-transaction
-- Staff look up what happened in a conversation.
CREATE INDEX CONCURRENTLY IF NOT EXISTS usage_before_by_conversation ON usage (conversation_id, at) WHERE conversation_id IS NOT NULL;
