-- Which migrations have run, for the processes that serve: a version that is newer than the schema is not ready.
CREATE FUNCTION chat.schema_versions() RETURNS bigint[]
LANGUAGE plpgsql STABLE SET search_path = chat, pg_temp
AS $$
BEGIN
    RETURN (SELECT COALESCE(array_agg(m.version ORDER BY m.version), '{}') FROM chat._sqlx_migrations m WHERE m.success);
END $$;
REVOKE ALL ON FUNCTION chat.schema_versions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.schema_versions() TO balas_api, balas_worker, balas_operator;

-- The list is the runner's; where the files are applied without it, there is none.
DO $$
BEGIN
    IF to_regclass('chat._sqlx_migrations') IS NOT NULL THEN
        GRANT SELECT (version, success) ON chat._sqlx_migrations TO balas_api, balas_worker, balas_operator;
    END IF;
END $$;
