-- no-transaction
-- The dead letters that wait for an operator, newest first. A run that was interrupted leaves an
-- invalid index, and the next one says so: drop it (DROP INDEX chat.generations_dead) and migrate again.
CREATE INDEX CONCURRENTLY generations_dead ON chat.generations (id) WHERE status = 'failed' AND settled_at IS NULL;
