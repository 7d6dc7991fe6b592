-- no-transaction
-- The generations that take a place of their person. Its condition is not on `status`, nor is that of the
-- queries it is for: a condition on the status would be met by the indexes of ready and of unfinished rows
-- as well, which look free to a planner whose statistics are of a quiet moment, and hold everybody's backlog.
CREATE INDEX CONCURRENTLY generations_places ON chat.generations (user_id)
    WHERE finished_at IS NULL AND parked IS NULL AND kind <> 'title';
