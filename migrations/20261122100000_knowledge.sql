-- The knowledge base of the help desk: embedding profiles, entries, what is searched of them, uploads.
-- It belongs to nobody in particular, so there is no row-level security: the grants say all. Editors are
-- administrators of the API, and everybody's questions may be answered from it.

-- A model that texts are embedded with. Its vectors can only be compared with each other, so another
-- model is another profile, built beside the one that serves.
CREATE TABLE chat.knowledge_profiles (
    id              uuid PRIMARY KEY,
    provider        text NOT NULL,
    model           text NOT NULL,
    -- A halfvec of more does not fit a page, and one that is kept elsewhere is read 3.5 times slower.
    dimension       integer NOT NULL CHECK (dimension BETWEEN 1 AND 3900),
    query_prefix    text NOT NULL DEFAULT '',
    document_prefix text NOT NULL DEFAULT '',
    -- What the two legs of a search count, and from which similarity on an entry alone is an answer.
    word_weight     double precision NOT NULL DEFAULT 1,
    vector_weight   double precision NOT NULL DEFAULT 1,
    threshold       double precision NOT NULL DEFAULT 0.7,
    state           text NOT NULL CHECK (state IN ('building', 'active', 'retired')),
    created_at      timestamptz NOT NULL DEFAULT now(),
    activated_at    timestamptz
);
CREATE UNIQUE INDEX knowledge_profiles_one_active ON chat.knowledge_profiles (state) WHERE state = 'active';
CREATE UNIQUE INDEX knowledge_profiles_one_building ON chat.knowledge_profiles (state) WHERE state = 'building';

CREATE TABLE chat.knowledge_collections (
    name    text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    -- Counts changes of its words, so that a process knows when the vocabulary it holds is old.
    version bigint NOT NULL DEFAULT 0
);
INSERT INTO chat.knowledge_collections (name) VALUES ('default');

-- An upload, or a pass over everything for a new profile. Claimed, leased and fenced like a generation.
CREATE TABLE chat.knowledge_ingestions (
    id                  uuid PRIMARY KEY,
    kind                text NOT NULL CHECK (kind IN ('upload', 'reindex')),
    status              text NOT NULL CHECK (status IN ('uploading', 'queued', 'running', 'completed',
                                                        'completed_with_errors', 'failed', 'cancelled')),
    collection          text NOT NULL REFERENCES chat.knowledge_collections (name),
    profile_id          uuid REFERENCES chat.knowledge_profiles (id),
    -- The administrator who asked for it, for the ledger.
    created_by          uuid NOT NULL,
    file_name           text,
    encoding            text,
    delimiter           text,
    columns             jsonb NOT NULL DEFAULT '[]',
    rows_read           integer NOT NULL DEFAULT 0,
    rows_skipped        integer NOT NULL DEFAULT 0,
    documents_new       integer NOT NULL DEFAULT 0,
    documents_changed   integer NOT NULL DEFAULT 0,
    documents_unchanged integer NOT NULL DEFAULT 0,
    chunks_total        integer NOT NULL DEFAULT 0,
    chunks_embedded     integer NOT NULL DEFAULT 0,
    chunks_failed       integer NOT NULL DEFAULT 0,
    tokens              bigint NOT NULL DEFAULT 0,
    -- NULL is unknown and never 0.
    cost_credits        numeric(20, 12),
    problem             text,
    attempt             integer NOT NULL DEFAULT 0,
    claim_token         uuid,
    worker_id           text,
    lease_until         timestamptz,
    run_at              timestamptz NOT NULL DEFAULT now(),
    created_at          timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,
    updated_at          timestamptz NOT NULL DEFAULT now(),
    finished_at         timestamptz,
    CONSTRAINT knowledge_ingestions_claimed_iff_running CHECK ((status = 'running') = (claim_token IS NOT NULL))
) WITH (fillfactor = 50);
CREATE INDEX knowledge_ingestions_open ON chat.knowledge_ingestions (run_at)
    WHERE status IN ('uploading', 'queued', 'running');

CREATE TABLE chat.knowledge_documents (
    id           uuid PRIMARY KEY,
    collection   text NOT NULL REFERENCES chat.knowledge_collections (name),
    -- SHA-256 of menu and issue as they are compared: what makes a row the same entry again.
    key          bytea NOT NULL,
    -- SHA-256 of all fields.
    hash         bytea NOT NULL,
    menu         text NOT NULL,
    issue        text NOT NULL,
    solution     text NOT NULL,
    note_dev     text NOT NULL,
    note_qa      text NOT NULL,
    version      integer NOT NULL DEFAULT 1,
    ingestion_id uuid,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (collection, key)
);
CREATE INDEX knowledge_documents_by_collection ON chat.knowledge_documents (collection, id);

-- What a question is matched against.
CREATE TABLE chat.knowledge_chunks (
    id           uuid PRIMARY KEY,
    document_id  uuid NOT NULL REFERENCES chat.knowledge_documents (id) ON DELETE CASCADE,
    collection   text NOT NULL,
    place        integer NOT NULL,
    -- The text that is embedded: menu and issue.
    content      text NOT NULL,
    text_hash    bytea NOT NULL,
    -- Menu and issue, and with less weight what answers them.
    words        tsvector NOT NULL,
    ingestion_id uuid,
    -- Why the provider refused the text; it is found by its words alone.
    embed_error  text,
    UNIQUE (document_id, place)
);
CREATE INDEX knowledge_chunks_by_words ON chat.knowledge_chunks USING gin (words);
CREATE INDEX knowledge_chunks_by_ingestion ON chat.knowledge_chunks (ingestion_id, id);
CREATE INDEX knowledge_chunks_by_text ON chat.knowledge_chunks (text_hash);

-- The rows of an upload until they are entries. What was skipped or refused stays to be shown.
CREATE TABLE chat.knowledge_rows (
    ingestion_id uuid NOT NULL REFERENCES chat.knowledge_ingestions (id) ON DELETE CASCADE,
    line         integer NOT NULL,
    key          bytea,
    hash         bytea,
    menu         text NOT NULL DEFAULT '',
    issue        text NOT NULL DEFAULT '',
    solution     text NOT NULL DEFAULT '',
    note_dev     text NOT NULL DEFAULT '',
    note_qa      text NOT NULL DEFAULT '',
    outcome      text CHECK (outcome IN ('new', 'changed', 'unchanged', 'skipped', 'failed')),
    reason       text,
    PRIMARY KEY (ingestion_id, line),
    CONSTRAINT knowledge_rows_skipped_has_reason CHECK (outcome IS DISTINCT FROM 'skipped' OR reason IS NOT NULL)
);
CREATE INDEX knowledge_rows_waiting ON chat.knowledge_rows (ingestion_id, line) WHERE outcome IS NULL;
CREATE INDEX knowledge_rows_by_key ON chat.knowledge_rows (ingestion_id, key, line);

-- The words of a collection, as people may have meant to write them, and in how many entries they are.
CREATE TABLE chat.knowledge_words (
    collection text NOT NULL REFERENCES chat.knowledge_collections (name),
    word       text NOT NULL,
    lexeme     text NOT NULL,
    documents  integer NOT NULL,
    PRIMARY KEY (collection, word)
);

-- What people say for what the entries say. For all collections.
CREATE TABLE chat.knowledge_synonyms (
    word       text NOT NULL,
    means      text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (word, means),
    CHECK (word = lower(word) AND char_length(word) BETWEEN 1 AND 100 AND char_length(means) BETWEEN 1 AND 100)
);

-- The vectors and what answers for their type, which comes with pgvector. `balas-api migrate` calls this
-- each time, so the extension may come later. Returns whether there is a table for vectors.
CREATE FUNCTION chat.prepare_vectors() RETURNS boolean LANGUAGE plpgsql
AS $$
DECLARE
    kind text;
BEGIN
    IF to_regclass('chat.knowledge_vectors') IS NOT NULL THEN
        RETURN true;
    END IF;
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
    RETURN true;
END $$;
REVOKE ALL ON FUNCTION chat.prepare_vectors() FROM PUBLIC;

-- The chunks whose vectors of a profile are nearest, by cosine, best first; all vectors are compared. What
-- is added to the distance keeps any index from being used, and what is sorted small.
CREATE FUNCTION chat.nearest(profile uuid, query text, in_collection text, many bigint)
RETURNS TABLE (chunk_id uuid, similarity double precision)
LANGUAGE plpgsql STABLE SET enable_seqscan = on
AS $$
DECLARE
    home text;
BEGIN
    SELECT n.nspname INTO home
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
    RETURN QUERY EXECUTE format(
        'SELECT v.chunk_id, 1 - ((v.embedding OPERATOR(%1$I.<=>) $2::%1$I.halfvec) + 0)
         FROM chat.knowledge_vectors v WHERE v.profile_id = $1 AND v.collection = $3
         ORDER BY (v.embedding OPERATOR(%1$I.<=>) $2::%1$I.halfvec) + 0 LIMIT $4', home)
    USING profile, query, in_collection, many;
END $$;
REVOKE ALL ON FUNCTION chat.nearest(uuid, text, text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.nearest(uuid, text, text, bigint) TO balas_api, balas_worker;

GRANT SELECT ON chat.knowledge_profiles, chat.knowledge_collections, chat.knowledge_words TO balas_api;
GRANT INSERT ON chat.knowledge_collections TO balas_api;
GRANT UPDATE (version) ON chat.knowledge_collections TO balas_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON chat.knowledge_ingestions, chat.knowledge_rows TO balas_api;
GRANT SELECT, DELETE ON chat.knowledge_documents TO balas_api;
GRANT SELECT ON chat.knowledge_chunks TO balas_api;
GRANT SELECT, INSERT, DELETE ON chat.knowledge_synonyms TO balas_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON chat.knowledge_profiles, chat.knowledge_collections, chat.knowledge_ingestions,
    chat.knowledge_rows, chat.knowledge_documents, chat.knowledge_chunks, chat.knowledge_words TO balas_worker;
GRANT SELECT ON chat.knowledge_synonyms TO balas_worker;

SELECT chat.prepare_vectors();

-- What people write for what the help desk's entries say: slang, short forms, English.
INSERT INTO chat.knowledge_synonyms (word, means) VALUES
    ('ga', 'tidak'), ('gak', 'tidak'), ('gk', 'tidak'), ('nggak', 'tidak'), ('ngga', 'tidak'), ('enggak', 'tidak'),
    ('tdk', 'tidak'), ('tak', 'tidak'), ('blm', 'belum'), ('udh', 'sudah'), ('udah', 'sudah'), ('sdh', 'sudah'),
    ('dgn', 'dengan'), ('utk', 'untuk'), ('krn', 'karena'), ('yg', 'yang'), ('bs', 'bisa'), ('dpt', 'dapat'),
    ('kekunci', 'terkunci'), ('kunci', 'terkunci'), ('ilang', 'hilang'), ('ngilang', 'hilang'), ('lemot', 'lambat'),
    ('lelet', 'lambat'), ('lola', 'lambat'), ('eror', 'error'), ('erorr', 'error'), ('galat', 'error'),
    ('vendor', 'rekanan'), ('penyedia', 'rekanan'), ('supplier', 'rekanan'), ('pihak ketiga', 'rekanan'),
    ('masuk', 'login'), ('log in', 'login'), ('sign in', 'login'), ('keluar', 'logout'), ('log out', 'logout'),
    ('sandi', 'password'), ('kata sandi', 'password'), ('pass', 'password'), ('pwd', 'password'), ('paswot', 'password'),
    ('lupa', 'reset'), ('ganti', 'ubah'), ('edit', 'ubah'), ('ngedit', 'ubah'), ('rubah', 'ubah'), ('hapus', 'dihapus'),
    ('cetak', 'print'), ('ngeprint', 'print'), ('nyetak', 'cetak'), ('print', 'cetak'), ('unduh', 'download'),
    ('donlot', 'unduh'), ('download', 'unduh'), ('unggah', 'upload'), ('aplot', 'upload'), ('upload', 'unggah'),
    ('simpan', 'tersimpan'), ('nyimpen', 'simpan'), ('kesimpen', 'simpan'), ('nyimpan', 'simpan'),
    ('muncul', 'tampil'), ('nongol', 'muncul'), ('keluar', 'muncul'), ('kosong', 'tampil'), ('nol', 'kosong'),
    ('duit', 'anggaran'), ('dana', 'anggaran'), ('pagu', 'anggaran'), ('budget', 'anggaran'), ('gaji', 'penggajian'),
    ('payment', 'pembayaran'), ('report', 'laporan'), ('lap', 'laporan'), ('lpj', 'pertanggungjawaban'),
    ('account', 'akun'), ('user', 'pengguna'), ('locked', 'terkunci'), ('blocked', 'terblokir'), ('slow', 'lambat'),
    ('save', 'simpan'), ('saved', 'simpan'), ('delete', 'hapus'), ('missing', 'hilang'), ('disappeared', 'hilang'),
    ('empty', 'kosong'), ('blank', 'kosong'), ('wrong', 'salah'), ('failed', 'gagal'), ('fails', 'gagal'),
    ('cannot', 'gagal'), ('print', 'cetak'), ('balance', 'saldo'), ('approve', 'setuju'), ('approval', 'persetujuan'),
    ('rejected', 'ditolak'), ('reject', 'tolak'), ('tax', 'pajak'), ('asset', 'aset'), ('journal', 'jurnal'),
    ('signature', 'tanda tangan'), ('ttd', 'tanda tangan'), ('tte', 'tanda tangan elektronik'),
    ('year', 'tahun'), ('closing', 'tutup'), ('attachment', 'lampiran'), ('menu', 'menu'), ('treasurer', 'bendahara'),
    ('expenditure', 'belanja'), ('spending', 'belanja'), ('revenue', 'pendapatan'), ('income', 'pendapatan'),
    ('regional', 'daerah'), ('work unit', 'skpd'), ('dinas', 'skpd'), ('opd', 'skpd'), ('satker', 'skpd'),
    ('double', 'ganda'), ('dobel', 'ganda'), ('duplicate', 'ganda'), ('kembar', 'ganda')
ON CONFLICT DO NOTHING;
