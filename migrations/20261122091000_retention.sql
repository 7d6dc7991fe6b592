-- What is older than the retention period goes: whole months of messages, ledger and usage as partitions; conversations in
-- which nothing happened since, with all that belongs to them; generations and feedback row by row.

-- Drops at most one partition whose whole month lies before `cutoff`, the oldest first, so that what it locks is free again
-- at once. Returns its name; NULL when there is none. It runs as the owner, and refuses a cutoff that can only be a mistake.
CREATE FUNCTION chat.drop_partition(cutoff timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = chat, pg_temp SET TimeZone = 'UTC' SET lock_timeout = '1s'
AS $$
DECLARE
    child  text;
BEGIN
    IF cutoff > now() - interval '7 days' THEN
        RAISE EXCEPTION 'what is younger than a week is not dropped';
    END IF;
    SELECT c.relname INTO child
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid
    JOIN pg_class p ON p.oid = i.inhparent
    JOIN pg_namespace n ON n.oid = p.relnamespace AND n.nspname = 'chat'
    WHERE p.relname IN ('messages', 'attempts', 'usage_tracking')
      AND c.relname ~ '_[0-9]{4}_[0-9]{2}$'
      AND to_date(right(c.relname, 7), 'YYYY_MM')::timestamptz + interval '1 month' <= cutoff
    ORDER BY right(c.relname, 7), c.relname
    LIMIT 1;
    IF child IS NOT NULL THEN
        EXECUTE format('DROP TABLE chat.%I', child);
    END IF;
    RETURN child;
END $$;
REVOKE ALL ON FUNCTION chat.drop_partition(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.drop_partition(timestamptz) TO balas_worker;

CREATE POLICY sweep_expire ON chat.conversations FOR DELETE TO balas_worker USING (chat.is_sweep());
CREATE POLICY sweep ON chat.feedback TO balas_worker USING (chat.is_sweep()) WITH CHECK (chat.is_sweep());
GRANT DELETE ON chat.conversations, chat.generations TO balas_worker;
-- What somebody thought of a reply is none of its business.
GRANT SELECT (message_id), DELETE ON chat.feedback TO balas_worker;

-- Rows that change often: vacuum comes after a fiftieth of them, not after a fifth.
ALTER TABLE chat.generations SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE chat.conversations SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE chat.idempotency_keys SET (autovacuum_vacuum_scale_factor = 0.05);
