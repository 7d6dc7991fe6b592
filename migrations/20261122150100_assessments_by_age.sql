-- no-transaction
-- For the end of the retention period. Written once for each assessment: the column never changes.
CREATE INDEX CONCURRENTLY IF NOT EXISTS assessments_by_age ON chat.assessments (created_at);
