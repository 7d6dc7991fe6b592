-- Roles, schema and extension: everything that needs more rights than owning the schema.
-- Run before the numbered migrations, by a login that may create roles; it may be run again and
-- again, and two databases of one server may run it at the same time.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['balas_owner', 'balas_api', 'balas_worker', 'balas_operator', 'balas_indexer'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS', role_name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- Another database's bootstrap was faster.
            END;
        END IF;
        -- The login that migrates and the logins that serve switch into these roles.
        IF NOT pg_has_role(current_user, role_name, 'MEMBER') THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', role_name);
        END IF;
    END LOOP;
END $$;

CREATE SCHEMA IF NOT EXISTS chat AUTHORIZATION balas_owner;
GRANT USAGE ON SCHEMA chat TO balas_api, balas_worker, balas_operator, balas_indexer;

-- Owns the vectors of the knowledge base, because only an owner may index a table that is in use. Nobody serves as
-- it. Where this is refused there are no such indexes, and everything else works.
DO $$
BEGIN
    GRANT CREATE ON SCHEMA chat TO balas_indexer;
    IF NOT pg_has_role('balas_owner', 'balas_indexer', 'MEMBER') THEN
        GRANT balas_indexer TO balas_owner;
    END IF;
EXCEPTION WHEN insufficient_privilege OR unique_violation THEN
    RAISE NOTICE 'large collections of the knowledge base get no index: %', SQLERRM;
END $$;

-- Only the knowledge base needs vectors; a server without the extension serves everything else.
DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS vector;
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE 'the extension "vector" is not available, so the knowledge base is off: %', SQLERRM;
END $$;
