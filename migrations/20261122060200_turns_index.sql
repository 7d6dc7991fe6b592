-- no-transaction
-- Conversations in which something waits for its turn: the sweep looks whether it has come.
CREATE INDEX CONCURRENTLY generations_turns ON chat.generations (conversation_id, id) WHERE parked = 'turn';
