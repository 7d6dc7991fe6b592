-- An index whose making was interrupted stays behind invalid, and the migration that makes it would take it for made.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = to_regclass('chat.conversations_of_assessment')
               AND NOT i.indisvalid) THEN
        RAISE EXCEPTION 'the index chat.conversations_of_assessment is invalid'
            USING HINT = 'REINDEX INDEX CONCURRENTLY chat.conversations_of_assessment; then migrate again';
    END IF;
END $$;
