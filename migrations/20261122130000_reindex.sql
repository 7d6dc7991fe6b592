-- Another embedding model for the knowledge base: its vectors are built beside those that serve, and swapped in
-- one transaction. What served before is kept for a while, so that going back costs nothing.
ALTER TABLE chat.knowledge_profiles ADD COLUMN retired_at timestamptz;

-- Texts that the model of a profile refused while it was built. An upload notes it with the text instead.
CREATE TABLE chat.knowledge_refused (
    profile_id uuid NOT NULL REFERENCES chat.knowledge_profiles (id) ON DELETE CASCADE,
    chunk_id   uuid NOT NULL REFERENCES chat.knowledge_chunks (id) ON DELETE CASCADE,
    reason     text NOT NULL,
    PRIMARY KEY (profile_id, chunk_id)
);
CREATE INDEX knowledge_refused_by_chunk ON chat.knowledge_refused (chunk_id);

-- Vectors of questions, for all workers and across restarts. A question itself is nowhere in here: only its
-- hash, and what the model makes of it.
CREATE TABLE chat.knowledge_questions (
    profile_id uuid NOT NULL REFERENCES chat.knowledge_profiles (id) ON DELETE CASCADE,
    text_hash  bytea NOT NULL,
    embedding  real[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (profile_id, text_hash)
);
CREATE INDEX knowledge_questions_by_age ON chat.knowledge_questions (created_at);

GRANT INSERT ON chat.knowledge_profiles TO balas_api;
GRANT UPDATE (state, retired_at) ON chat.knowledge_profiles TO balas_api;
GRANT SELECT, DELETE ON chat.knowledge_refused TO balas_api;
GRANT SELECT, INSERT, DELETE ON chat.knowledge_refused TO balas_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON chat.knowledge_questions TO balas_worker;

-- What an index of the vectors of one profile and collection is called.
CREATE FUNCTION chat.vector_index_name(profile uuid, in_collection text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN 'knowledge_vectors_near_' || substr(md5(profile::text || ' ' || in_collection), 1, 16);
GRANT EXECUTE ON FUNCTION chat.vector_index_name(uuid, text) TO balas_api, balas_worker, balas_indexer;

-- The statement that makes it, for whoever owns the vectors. It cannot be run from here: nobody who deletes an
-- entry meanwhile should wait, and what is concurrent is no part of a transaction.
CREATE FUNCTION chat.vector_index_statement(profile uuid, in_collection text) RETURNS text LANGUAGE sql STABLE
RETURN (SELECT format(
            'CREATE INDEX CONCURRENTLY %I ON chat.knowledge_vectors USING hnsw ((embedding::%I.halfvec(%s)) %I.halfvec_cosine_ops)
             WITH (m = 16, ef_construction = 64) WHERE profile_id = %L::uuid AND collection = %L::text',
            chat.vector_index_name(profile, in_collection), n.nspname, p.dimension, n.nspname, profile, in_collection)
        FROM chat.knowledge_profiles p, pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
        WHERE p.id = profile AND e.extname = 'vector');
GRANT EXECUTE ON FUNCTION chat.vector_index_statement(uuid, text) TO balas_indexer;
GRANT SELECT ON chat.knowledge_profiles, chat.knowledge_collections TO balas_indexer;

-- As before, and for a collection that has an index, by that: few of the vectors are compared then.
CREATE OR REPLACE FUNCTION chat.nearest(profile uuid, query text, in_collection text, many bigint)
RETURNS TABLE (chunk_id uuid, similarity double precision)
LANGUAGE plpgsql STABLE SET enable_seqscan = on SET enable_sort = on
AS $$
DECLARE
    home text;
    width integer;
BEGIN
    SELECT n.nspname INTO home
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
    SELECT p.dimension INTO width
    FROM chat.knowledge_profiles p
    WHERE p.id = profile AND EXISTS (
        SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE c.relnamespace = 'chat'::regnamespace AND c.relname = chat.vector_index_name(profile, in_collection)
          AND i.indisvalid);
    IF width IS NULL THEN
        RETURN QUERY EXECUTE format(
            'SELECT v.chunk_id, 1 - ((v.embedding OPERATOR(%1$I.<=>) $2::%1$I.halfvec) + 0)
             FROM chat.knowledge_vectors v WHERE v.profile_id = $1 AND v.collection = $3
             ORDER BY (v.embedding OPERATOR(%1$I.<=>) $2::%1$I.halfvec) + 0 LIMIT $4', home)
        USING profile, query, in_collection, many;
        RETURN;
    END IF;
    -- More candidates than are wanted, for nearly the same answers as comparing all: ef 200 found 98 of 100 in
    -- a million. Nothing may be sorted, so that the index is what is left to use.
    PERFORM set_config('hnsw.ef_search', least(1000, greatest(200, 2 * many))::text, true),
            set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true);
    RETURN QUERY EXECUTE format(
        'SELECT v.chunk_id, 1 - ((v.embedding::%1$I.halfvec(%2$s)) OPERATOR(%1$I.<=>) $1::%1$I.halfvec(%2$s))
         FROM chat.knowledge_vectors v WHERE v.profile_id = %3$L::uuid AND v.collection = %4$L::text
         ORDER BY (v.embedding::%1$I.halfvec(%2$s)) OPERATOR(%1$I.<=>) $1::%1$I.halfvec(%2$s) LIMIT $2',
        home, width, profile, in_collection)
    USING query, many;
END $$;

-- As before, and the vectors belong to a role that nobody serves as and that owns nothing else: whoever makes
-- an index beside those who write must own the table. Where it cannot be given away there is no index, and all
-- vectors are compared.
CREATE OR REPLACE FUNCTION chat.prepare_vectors() RETURNS boolean LANGUAGE plpgsql
AS $$
DECLARE
    kind text;
BEGIN
    IF to_regclass('chat.knowledge_vectors') IS NULL THEN
        SELECT format('%I.halfvec', n.nspname) INTO kind
        FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
        WHERE e.extname = 'vector'
          AND EXISTS (SELECT FROM pg_type t WHERE t.typname = 'halfvec' AND t.typnamespace = n.oid);
        IF kind IS NULL THEN
            RETURN false;
        END IF;
        EXECUTE format('CREATE TABLE chat.knowledge_vectors (
            profile_id uuid NOT NULL REFERENCES chat.knowledge_profiles (id) ON DELETE CASCADE,
            chunk_id   uuid NOT NULL REFERENCES chat.knowledge_chunks (id) ON DELETE CASCADE,
            collection text NOT NULL,
            embedding  %s NOT NULL,
            PRIMARY KEY (profile_id, chunk_id))', kind);
        CREATE INDEX knowledge_vectors_by_chunk ON chat.knowledge_vectors (chunk_id);
        ALTER TABLE chat.knowledge_vectors ALTER COLUMN embedding SET STORAGE PLAIN;
        GRANT SELECT ON chat.knowledge_vectors TO balas_api;
        GRANT SELECT, INSERT, DELETE ON chat.knowledge_vectors TO balas_worker;
    END IF;
    IF (SELECT c.relowner <> 'balas_indexer'::regrole FROM pg_class c WHERE c.oid = 'chat.knowledge_vectors'::regclass) THEN
        BEGIN
            ALTER TABLE chat.knowledge_vectors OWNER TO balas_indexer;
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE NOTICE 'large collections get no index of their vectors: %', SQLERRM;
        END;
    END IF;
    RETURN true;
END $$;
REVOKE ALL ON FUNCTION chat.prepare_vectors() FROM PUBLIC;

SELECT chat.prepare_vectors();

-- Editors may have a text tried again that was refused.
GRANT UPDATE (embed_error) ON chat.knowledge_chunks TO balas_api;
