-- Conversations, messages, generations, the ledger and usage, with row-level security.

-- The smallest UUIDv7 of a moment: partitions by id are partitions by time.
CREATE FUNCTION chat.uuid7_floor(moment timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- The person on whose behalf the transaction runs. A setting that was once set in a session reads
-- as '' in later transactions, which is why the empty text must count as nobody.
CREATE FUNCTION chat.current_user_id() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN NULLIF(current_setting('app.current_user_id', true), '')::uuid;

-- Whether the transaction is one of the worker's sweeps over all users.
CREATE FUNCTION chat.is_sweep() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN COALESCE(current_setting('app.sweep', true), '') = 'on';

CREATE TABLE chat.conversations (
    id               uuid PRIMARY KEY,
    user_id          uuid NOT NULL,
    title            text NOT NULL CHECK (char_length(title) BETWEEN 1 AND 255),
    title_is_default boolean NOT NULL DEFAULT true,
    context_type     text NOT NULL CHECK (context_type IN ('general', 'assessment', 'career_guidance', 'support')),
    status           text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'archived', 'deleted')),
    context_data     jsonb NOT NULL DEFAULT '{}',
    metadata         jsonb NOT NULL DEFAULT '{}',
    assessment_id    uuid,
    message_count    integer NOT NULL DEFAULT 0,
    -- The largest id given out in this conversation; the next one must sort after it.
    last_id          uuid NOT NULL,
    last_message_at  timestamptz,
    last_activity_at timestamptz NOT NULL DEFAULT now(),
    version          integer NOT NULL DEFAULT 1,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
CREATE INDEX conversations_by_activity ON chat.conversations (user_id, last_activity_at DESC, id DESC);

CREATE TABLE chat.messages (
    id                uuid PRIMARY KEY,
    user_id           uuid NOT NULL,
    conversation_id   uuid NOT NULL REFERENCES chat.conversations (id) ON DELETE CASCADE,
    sender_type       text NOT NULL CHECK (sender_type IN ('user', 'assistant', 'system')),
    content           text NOT NULL,
    content_type      text NOT NULL DEFAULT 'text' CHECK (content_type IN ('text', 'image', 'file')),
    attachments       jsonb NOT NULL DEFAULT '[]',
    metadata          jsonb NOT NULL DEFAULT '{}',
    parent_message_id uuid,
    superseded_by     uuid,
    token_count       integer NOT NULL CHECK (token_count >= 0),
    created_at        timestamptz NOT NULL DEFAULT now()
) PARTITION BY RANGE (id);
CREATE INDEX messages_by_conversation ON chat.messages (conversation_id, id);

CREATE TABLE chat.generations (
    id                   uuid PRIMARY KEY,
    user_id              uuid NOT NULL,
    conversation_id      uuid NOT NULL REFERENCES chat.conversations (id) ON DELETE CASCADE,
    kind                 text NOT NULL CHECK (kind IN ('reply', 'regenerate', 'welcome', 'title', 'support')),
    -- Copied from the conversation, so that a claim over all users needs no look at it.
    context_type         text NOT NULL,
    status               text NOT NULL DEFAULT 'queued'
                         CHECK (status IN ('queued', 'in_progress', 'completed', 'incomplete', 'failed', 'cancelled')),
    priority             text NOT NULL CHECK (priority IN ('premium', 'standard', 'background')),
    -- The ordered models it may use: [{"name": …, "free": …}].
    model_chain          jsonb NOT NULL,
    model                text NOT NULL,
    is_free_model        boolean NOT NULL,
    stream               boolean NOT NULL DEFAULT true,
    user_message_id      uuid,
    replaces_message_id  uuid,
    assistant_message_id uuid,
    partial_content      text,
    -- Claims so far: the number of the newest attempt, and the fencing token's readable half.
    attempt              integer NOT NULL DEFAULT 0,
    -- Claims that were given back in order (drain, pacing) and do not count against max_attempts.
    forgiven             integer NOT NULL DEFAULT 0,
    max_attempts         integer NOT NULL DEFAULT 5,
    claim_token          uuid,
    worker_id            text,
    lease_until          timestamptz,
    run_at               timestamptz NOT NULL DEFAULT now(),
    deadline_at          timestamptz NOT NULL,
    pushed_at            timestamptz,
    error_code           text,
    error_detail         text,
    usage                jsonb,
    request_id           text,
    traceparent          text,
    queued_at            timestamptz NOT NULL DEFAULT now(),
    started_at           timestamptz,
    first_token_at       timestamptz,
    finished_at          timestamptz,
    -- So a statement guarded by the token is guarded by the status as well, and needs no predicate
    -- that a planner with stale statistics could answer from a partial index.
    CONSTRAINT generations_claimed_iff_in_progress CHECK ((status = 'in_progress') = (claim_token IS NOT NULL)),
    CONSTRAINT generations_leased_iff_claimed CHECK ((lease_until IS NULL) = (claim_token IS NULL)),
    CONSTRAINT generations_failed_has_code CHECK ((status = 'failed') = (error_code IS NOT NULL))
) WITH (fillfactor = 70);
-- Promise 3 holds whatever the code does: one running reply of a conversation, and one title.
CREATE UNIQUE INDEX generations_one_in_progress ON chat.generations (conversation_id, (kind = 'title'))
    WHERE status = 'in_progress';
CREATE INDEX generations_ready ON chat.generations (priority, run_at, id) WHERE status = 'queued';
CREATE INDEX generations_unfinished ON chat.generations (conversation_id, id) WHERE status IN ('queued', 'in_progress');
CREATE INDEX generations_by_user ON chat.generations (user_id, id DESC);

-- The ledger: one row per upstream call.
CREATE TABLE chat.attempts (
    id                uuid PRIMARY KEY,
    user_id           uuid NOT NULL,
    generation_id     uuid NOT NULL,
    attempt           integer NOT NULL,
    operation         text NOT NULL CHECK (operation IN ('completion', 'embedding', 'classification', 'title')),
    key_label         text NOT NULL,
    model_asked       text NOT NULL,
    model_served      text,
    upstream_id       text,
    outcome           text NOT NULL DEFAULT 'running',
    prompt_tokens     integer,
    completion_tokens integer,
    cost_credits      numeric(20, 12),
    usage             jsonb,
    wasted            boolean NOT NULL DEFAULT false,
    started_at        timestamptz NOT NULL,
    first_token_at    timestamptz,
    finished_at       timestamptz
) PARTITION BY RANGE (id);
CREATE INDEX attempts_by_generation ON chat.attempts (generation_id);

-- What each operation took, for the owner of the cost.
CREATE TABLE chat.usage_tracking (
    id                 uuid PRIMARY KEY,
    user_id            uuid NOT NULL,
    conversation_id    uuid,
    generation_id      uuid,
    operation          text NOT NULL CHECK (operation IN ('completion', 'embedding', 'classification', 'title')),
    model              text NOT NULL,
    prompt_tokens      integer NOT NULL,
    completion_tokens  integer NOT NULL,
    cached_tokens      integer NOT NULL DEFAULT 0,
    reasoning_tokens   integer NOT NULL DEFAULT 0,
    -- NULL is unknown and never 0.
    cost_credits       numeric(20, 12),
    is_free_model      boolean NOT NULL,
    wasted             boolean NOT NULL DEFAULT false,
    processing_time_ms integer NOT NULL,
    created_at         timestamptz NOT NULL DEFAULT now()
) PARTITION BY RANGE (id);
CREATE INDEX usage_tracking_by_user ON chat.usage_tracking (user_id, id);

CREATE TABLE chat.idempotency_keys (
    user_id      uuid NOT NULL,
    key          text NOT NULL CHECK (char_length(key) BETWEEN 1 AND 255),
    -- SHA-256 of method, path and body.
    fingerprint  bytea NOT NULL,
    status       smallint NOT NULL,
    location     text,
    body         text NOT NULL,
    -- While the first request still waits for its reply.
    locked_until timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_keys_by_age ON chat.idempotency_keys (created_at);

CREATE TABLE chat.feedback (
    message_id uuid PRIMARY KEY,
    user_id    uuid NOT NULL,
    rating     text NOT NULL CHECK (rating IN ('up', 'down')),
    comment    text CHECK (char_length(comment) <= 2000),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX feedback_by_user ON chat.feedback (user_id);

-- Makes the monthly partitions from the month of `since` to `months_ahead` months from now. It
-- runs as the owner, because the worker that calls it owns nothing; a row outside all of them
-- falls into the default partition and is never refused. Made late, a month takes its rows from
-- there: Postgres attaches no partition beside a default one that holds rows of it.
CREATE FUNCTION chat.ensure_partitions(months_ahead integer DEFAULT 3, since timestamptz DEFAULT now())
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = chat, pg_temp SET TimeZone = 'UTC'
AS $$
DECLARE
    parent text;
    month  timestamptz;
    made   integer := 0;
    child  text;
    low    uuid;
    high   uuid;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('chat.ensure_partitions'));
    FOREACH parent IN ARRAY ARRAY['messages', 'attempts', 'usage_tracking'] LOOP
        FOR month IN SELECT generate_series(date_trunc('month', since),
                                            date_trunc('month', now()) + make_interval(months => months_ahead),
                                            interval '1 month') LOOP
            child := format('%s_%s', parent, to_char(month, 'YYYY_MM'));
            CONTINUE WHEN to_regclass('chat.' || child) IS NOT NULL;
            low := chat.uuid7_floor(month);
            high := chat.uuid7_floor(month + interval '1 month');
            EXECUTE format('CREATE TABLE chat.%I (LIKE chat.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', child, parent);
            -- The owner, too, sees the rows of a forced table through policies only.
            EXECUTE format('ALTER TABLE chat.%I NO FORCE ROW LEVEL SECURITY', parent || '_default');
            EXECUTE format('WITH moved AS (DELETE FROM chat.%I WHERE id >= %L AND id < %L RETURNING *)
                            INSERT INTO chat.%I SELECT * FROM moved', parent || '_default', low, high, child);
            EXECUTE format('ALTER TABLE chat.%I FORCE ROW LEVEL SECURITY', parent || '_default');
            EXECUTE format('ALTER TABLE chat.%I ATTACH PARTITION chat.%I FOR VALUES FROM (%L) TO (%L)',
                           parent, child, low, high);
            EXECUTE format('ALTER TABLE chat.%I ENABLE ROW LEVEL SECURITY', child);
            EXECUTE format('ALTER TABLE chat.%I FORCE ROW LEVEL SECURITY', child);
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;

CREATE TABLE chat.messages_default PARTITION OF chat.messages DEFAULT;
CREATE TABLE chat.attempts_default PARTITION OF chat.attempts DEFAULT;
CREATE TABLE chat.usage_tracking_default PARTITION OF chat.usage_tracking DEFAULT;
SELECT chat.ensure_partitions(3, now() - interval '1 month');

-- Row-level security. Every table with a user_id is forced, the partitions too (without policies of
-- their own: nobody reads them but through their parent).
DO $$
DECLARE
    relation text;
BEGIN
    FOR relation IN
        SELECT c.relname FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'chat'
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'user_id'
        WHERE c.relkind IN ('r', 'p')
    LOOP
        EXECUTE format('ALTER TABLE chat.%I ENABLE ROW LEVEL SECURITY', relation);
        EXECUTE format('ALTER TABLE chat.%I FORCE ROW LEVEL SECURITY', relation);
    END LOOP;
    FOREACH relation IN ARRAY ARRAY['conversations', 'messages', 'generations', 'attempts', 'usage_tracking',
                                    'idempotency_keys', 'feedback'] LOOP
        EXECUTE format('CREATE POLICY own_rows ON chat.%I TO balas_api, balas_worker
                        USING (user_id = chat.current_user_id()) WITH CHECK (user_id = chat.current_user_id())', relation);
    END LOOP;
END $$;

-- The sweeps over all users: claim, renew, reconcile, expiry of idempotency keys.
CREATE POLICY sweep ON chat.generations TO balas_worker USING (chat.is_sweep()) WITH CHECK (chat.is_sweep());
-- Notes that calls began are written for all users together.
CREATE POLICY sweep ON chat.attempts FOR INSERT TO balas_worker WITH CHECK (chat.is_sweep());
CREATE POLICY sweep ON chat.idempotency_keys FOR ALL TO balas_worker USING (chat.is_sweep()) WITH CHECK (chat.is_sweep());

GRANT SELECT, INSERT, UPDATE ON chat.conversations, chat.messages, chat.generations TO balas_api;
GRANT SELECT, INSERT, UPDATE ON chat.idempotency_keys, chat.feedback TO balas_api;
GRANT SELECT ON chat.attempts, chat.usage_tracking TO balas_api;
GRANT SELECT, INSERT, UPDATE ON chat.conversations, chat.messages, chat.generations, chat.attempts, chat.usage_tracking
    TO balas_worker;
GRANT SELECT, DELETE ON chat.idempotency_keys TO balas_worker;
REVOKE ALL ON FUNCTION chat.ensure_partitions(integer, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.ensure_partitions(integer, timestamptz) TO balas_worker;
