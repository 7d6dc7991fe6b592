-- no-transaction
-- One conversation of an assessment, whatever the code does.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS conversations_of_assessment ON chat.conversations (assessment_id)
    WHERE assessment_id IS NOT NULL AND status <> 'deleted';
