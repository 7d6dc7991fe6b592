-- What the help desk learns from: what became of each question, and what people answered who took over.

-- Whether the transaction is an administrator's, who reads what the knowledge base did not answer. Only
-- what is made for them has a policy for it.
CREATE FUNCTION chat.is_editor() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN COALESCE(current_setting('app.editor', true), '') = 'on';

-- One row for each question to the help desk. A reply that is made again changes the row of its question.
CREATE TABLE chat.support_questions (
    -- The person's message.
    message_id      uuid PRIMARY KEY,
    user_id         uuid NOT NULL,
    conversation_id uuid NOT NULL REFERENCES chat.conversations (id) ON DELETE CASCADE,
    -- The newest generation that answers it.
    generation_id   uuid NOT NULL,
    -- What was asked, without what could name somebody, and only where it was not answered or the answer
    -- did not help: nobody needs to read the others.
    question        text CHECK (char_length(question) <= 500),
    intent          text NOT NULL,
    answered        boolean NOT NULL,
    -- Why a person should take over; none where none should.
    escalation      text,
    -- The entries that the answer was made of, best first.
    documents       uuid[] NOT NULL DEFAULT '{}',
    rating          text CHECK (rating IN ('up', 'down')),
    asked_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX support_questions_by_conversation ON chat.support_questions (conversation_id, message_id);
CREATE INDEX support_questions_gaps ON chat.support_questions (message_id) WHERE question IS NOT NULL;
CREATE INDEX support_questions_rated ON chat.support_questions (message_id) WHERE rating IS NOT NULL;

ALTER TABLE chat.support_questions ENABLE ROW LEVEL SECURITY;
ALTER TABLE chat.support_questions FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON chat.support_questions TO balas_api, balas_worker
    USING (user_id = chat.current_user_id()) WITH CHECK (user_id = chat.current_user_id());
CREATE POLICY editor ON chat.support_questions FOR SELECT TO balas_api USING (chat.is_editor());
-- What became of questions is counted without their words.
CREATE POLICY operator ON chat.support_questions FOR SELECT TO balas_operator USING (true);
CREATE POLICY sweep_read ON chat.support_questions FOR SELECT TO balas_worker USING (chat.is_sweep());
CREATE POLICY sweep_expire ON chat.support_questions FOR DELETE TO balas_worker USING (chat.is_sweep());
GRANT SELECT, UPDATE ON chat.support_questions TO balas_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON chat.support_questions TO balas_worker;
GRANT SELECT (message_id, conversation_id, answered, escalation, rating, asked_at) ON chat.support_questions
    TO balas_operator;

-- Entries that editors may add, made of what people answered who took over.
CREATE TABLE chat.knowledge_proposals (
    id              uuid PRIMARY KEY,
    -- Who asked: it goes with everything else of theirs.
    user_id         uuid NOT NULL,
    conversation_id uuid NOT NULL REFERENCES chat.conversations (id) ON DELETE CASCADE,
    state           text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'approved', 'dismissed')),
    -- What was asked and what was answered, without what could name somebody; empty once it is decided.
    issue           text NOT NULL CHECK (char_length(issue) <= 2000),
    solution        text NOT NULL CHECK (char_length(solution) <= 20000),
    -- How the matter ended, in the words of the one who took over.
    resolution      text NOT NULL CHECK (char_length(resolution) <= 2000),
    created_at      timestamptz NOT NULL DEFAULT now(),
    decided_at      timestamptz,
    -- The administrator.
    decided_by      uuid,
    -- What made an entry of it.
    ingestion_id    uuid,
    CONSTRAINT knowledge_proposals_open_until_decided CHECK ((state = 'open') = (decided_at IS NULL)),
    CONSTRAINT knowledge_proposals_keep_no_words
        CHECK (state = 'open' OR (issue = '' AND solution = '' AND resolution = ''))
);
CREATE INDEX knowledge_proposals_by_state ON chat.knowledge_proposals (state, id);
CREATE INDEX knowledge_proposals_by_conversation ON chat.knowledge_proposals (conversation_id);

ALTER TABLE chat.knowledge_proposals ENABLE ROW LEVEL SECURITY;
ALTER TABLE chat.knowledge_proposals FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON chat.knowledge_proposals TO balas_api, balas_worker
    USING (user_id = chat.current_user_id()) WITH CHECK (user_id = chat.current_user_id());
CREATE POLICY editor_read ON chat.knowledge_proposals FOR SELECT TO balas_api USING (chat.is_editor());
CREATE POLICY editor_decide ON chat.knowledge_proposals FOR UPDATE TO balas_api
    USING (chat.is_editor()) WITH CHECK (chat.is_editor());
CREATE POLICY sweep_read ON chat.knowledge_proposals FOR SELECT TO balas_worker USING (chat.is_sweep());
CREATE POLICY sweep_expire ON chat.knowledge_proposals FOR DELETE TO balas_worker USING (chat.is_sweep());
GRANT SELECT, INSERT, DELETE ON chat.knowledge_proposals TO balas_api;
-- Whose it is never changes.
GRANT UPDATE (state, issue, solution, resolution, decided_at, decided_by, ingestion_id) ON chat.knowledge_proposals
    TO balas_api;
GRANT SELECT, DELETE ON chat.knowledge_proposals TO balas_worker;
