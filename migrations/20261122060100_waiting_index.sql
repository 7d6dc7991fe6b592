-- no-transaction
-- What is parked of a person, the oldest of each kind first. What has ended is not parked.
CREATE INDEX CONCURRENTLY generations_waiting ON chat.generations (user_id, parked, id) WHERE parked IS NOT NULL;
