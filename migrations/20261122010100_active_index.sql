-- no-transaction
-- The generations that take a place of their person: looked at when another one is accepted or woken.
CREATE INDEX CONCURRENTLY generations_active ON chat.generations (user_id)
    WHERE status IN ('queued', 'in_progress') AND parked IS NULL AND kind <> 'title';
