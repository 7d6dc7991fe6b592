-- Money to the last digit, costs that come late, and the operator's view of both.

-- Upstreams write costs with as many digits as they like. No row is rewritten by this.
ALTER TABLE chat.attempts ALTER COLUMN cost_credits TYPE numeric;
ALTER TABLE chat.usage_tracking ALTER COLUMN cost_credits TYPE numeric;

-- From this version on, the row of a call has the same id in both tables.

-- Calls whose cost the upstream is to be asked for.
CREATE TABLE chat.cost_questions (
    call_id     uuid PRIMARY KEY,
    user_id     uuid NOT NULL,
    upstream_id text NOT NULL,
    tries       integer NOT NULL DEFAULT 0,
    ask_at      timestamptz NOT NULL DEFAULT now(),
    -- It was asked as often as is reasonable; the cost stays unknown.
    given_up_at timestamptz
) WITH (fillfactor = 70);
CREATE INDEX cost_questions_due ON chat.cost_questions (ask_at);
CREATE INDEX cost_questions_by_user ON chat.cost_questions (user_id);

ALTER TABLE chat.cost_questions ENABLE ROW LEVEL SECURITY;
ALTER TABLE chat.cost_questions FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON chat.cost_questions TO balas_api, balas_worker
    USING (user_id = chat.current_user_id()) WITH CHECK (user_id = chat.current_user_id());
CREATE POLICY sweep ON chat.cost_questions TO balas_worker USING (chat.is_sweep()) WITH CHECK (chat.is_sweep());
GRANT SELECT, INSERT, UPDATE, DELETE ON chat.cost_questions TO balas_worker;

-- How far the ledger has been read for calls of unknown cost. It is read by its key, each row once by
-- either reader, so that no index is written with every call: the second comes hours later, for
-- rows that a process with a slow clock or a long outage wrote behind the first one's back.
CREATE TABLE chat.ledger_readers (
    name  text PRIMARY KEY CHECK (name IN ('soon', 'late')),
    up_to uuid NOT NULL
);
INSERT INTO chat.ledger_readers (name, up_to)
VALUES ('soon', chat.uuid7_floor(now() - interval '1 day')), ('late', chat.uuid7_floor(now() - interval '1 day'));
GRANT SELECT, UPDATE ON chat.ledger_readers TO balas_worker;

-- A cost that comes late is added to what was used, and anomalies are looked for over everybody.
CREATE POLICY sweep_read ON chat.usage_tracking FOR SELECT TO balas_worker USING (chat.is_sweep());
CREATE POLICY sweep_write ON chat.usage_tracking FOR UPDATE TO balas_worker
    USING (chat.is_sweep()) WITH CHECK (chat.is_sweep());

-- An operator sees what everybody used. There is no content in it.
CREATE POLICY operator ON chat.usage_tracking FOR SELECT TO balas_operator USING (true);
GRANT SELECT ON chat.usage_tracking TO balas_operator;
