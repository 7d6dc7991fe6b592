-- The operator's view: queues that can be paused, the fleet's register, dead letters that are
-- settled, and the trail of what operators did.

-- A failed generation is a dead letter until an operator has settled it. It stays failed, because
-- its client was told so: a replay is a generation of its own.
ALTER TABLE chat.generations
    ADD COLUMN settled_at  timestamptz,
    -- The generation that was queued in its place; none where the letter was discarded.
    ADD COLUMN replayed_as uuid,
    -- Not validated, which would read the whole table under a lock: no old row has the column.
    ADD CONSTRAINT generations_settled_only_failed CHECK (settled_at IS NULL OR status = 'failed') NOT VALID;

-- One row per priority. It holds what operators decided, and what was measured last: one
-- measurement serves every process.
CREATE TABLE chat.queues (
    name             text PRIMARY KEY CHECK (name IN ('premium', 'standard', 'background')),
    paused_at        timestamptz,
    paused_by        text CHECK (char_length(paused_by) <= 200),
    reason           text CHECK (char_length(reason) <= 500),
    -- Queued generations, those included that wait for their turn or for a retry.
    depth            bigint NOT NULL DEFAULT 0,
    -- Since when the generation that is due for longest has been.
    oldest_due_at    timestamptz,
    -- Generations of this queue that the fleet ends in a second.
    rate             double precision NOT NULL DEFAULT 0,
    -- Generations that leave this queue in a second while it has any; NULL until it is known.
    drain            double precision,
    -- Workers that live.
    workers          integer NOT NULL DEFAULT 0,
    measured_at      timestamptz NOT NULL DEFAULT '-infinity',
    CONSTRAINT queues_paused_by_somebody CHECK ((paused_at IS NULL) = (paused_by IS NULL))
) WITH (fillfactor = 50);
INSERT INTO chat.queues (name) VALUES ('premium'), ('standard'), ('background');

-- One row per start of a worker, written with the renewal of its leases.
CREATE TABLE chat.workers (
    boot         uuid PRIMARY KEY,
    name         text NOT NULL,
    version      text NOT NULL,
    started_at   timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    -- Since when it takes no more work.
    draining     boolean NOT NULL DEFAULT false,
    stopped_at   timestamptz,
    concurrency  integer NOT NULL,
    lease        interval NOT NULL,
    in_flight    integer NOT NULL,
    -- Generations ended in a second, by queue.
    rates        jsonb NOT NULL DEFAULT '{}',
    -- Generations that it could end in a second, by the time they take; NULL until it ended one.
    capacity     double precision
) WITH (fillfactor = 50);

-- What operators and other services did to a person's data or to the fleet.
CREATE TABLE chat.audit_log (
    id         uuid PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    actor      text NOT NULL CHECK (char_length(actor) BETWEEN 1 AND 200),
    action     text NOT NULL CHECK (char_length(action) BETWEEN 1 AND 100),
    -- What it was done to: a generation's id, a queue's name.
    subject    text NOT NULL CHECK (char_length(subject) BETWEEN 1 AND 200),
    -- Whose it is; none where it is nobody's.
    user_id    uuid,
    request_id text,
    details    jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_log_by_user ON chat.audit_log (user_id, id) WHERE user_id IS NOT NULL;
CREATE INDEX audit_log_by_subject ON chat.audit_log (subject, id);

ALTER TABLE chat.audit_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE chat.audit_log FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON chat.audit_log TO balas_api, balas_worker
    USING (user_id = chat.current_user_id()) WITH CHECK (user_id = chat.current_user_id());
CREATE POLICY operator ON chat.audit_log TO balas_operator USING (true) WITH CHECK (user_id IS NULL);
-- A trail is written and never changed.
GRANT INSERT ON chat.audit_log TO balas_api, balas_worker;
GRANT SELECT, INSERT ON chat.audit_log TO balas_operator;

-- Queues and workers are nobody's: the grants say all.
GRANT SELECT, UPDATE ON chat.queues TO balas_worker, balas_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON chat.workers TO balas_worker;
GRANT SELECT ON chat.workers TO balas_operator;

-- An operator sees the work of everybody, and nothing that anybody wrote or was answered.
CREATE POLICY operator ON chat.generations FOR SELECT TO balas_operator USING (true);
GRANT SELECT (id, user_id, conversation_id, kind, context_type, status, priority, model_chain, model, is_free_model,
              attempt, forgiven, max_attempts, worker_id, lease_until, run_at, deadline_at, error_code, error_detail,
              request_id, queued_at, started_at, finished_at, settled_at, replayed_as)
    ON chat.generations TO balas_operator;
