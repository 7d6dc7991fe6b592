-- no-transaction
-- What is parked of a person, the oldest of each kind first.
CREATE INDEX CONCURRENTLY generations_parked ON chat.generations (user_id, parked, id)
    WHERE parked IS NOT NULL AND status = 'queued';
