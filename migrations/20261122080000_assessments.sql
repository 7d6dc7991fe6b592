-- Assessments on their way to a conversation, the events that told of them, and stages as notifications.

CREATE TABLE chat.assessments (
    -- The platform's id; one assessment is one person's.
    id              uuid PRIMARY KEY,
    user_id         uuid NOT NULL,
    -- The conversation that is prepared from it, or will be: the id is known from the first stage on, so
    -- that stages can name it and are told in order.
    conversation_id uuid NOT NULL,
    -- How far it is; none for one that nobody has told of yet.
    stage           text CHECK (stage IN ('assessment_submitted', 'analysis_started', 'failed', 'analysis_complete',
                                          'chatbot_ready')),
    stage_rank      smallint NOT NULL DEFAULT 0,
    -- The results, as far as they are known.
    data            jsonb,
    language        text CHECK (language IN ('id', 'en')),
    -- The generation of the welcome.
    welcome_id      uuid,
    assessed_at     timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
CREATE INDEX assessments_by_user ON chat.assessments (user_id, created_at DESC);
-- Few at a time: those whose welcome is being made.
CREATE INDEX assessments_being_welcomed ON chat.assessments (welcome_id) WHERE stage = 'analysis_complete';

ALTER TABLE chat.assessments ENABLE ROW LEVEL SECURITY;
ALTER TABLE chat.assessments FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON chat.assessments TO balas_api, balas_worker
    USING (user_id = chat.current_user_id()) WITH CHECK (user_id = chat.current_user_id());
-- The end of a welcome, and welcomes that nobody else will end.
CREATE POLICY sweep_looks ON chat.assessments FOR SELECT TO balas_worker USING (chat.is_sweep());
CREATE POLICY sweep_ends ON chat.assessments FOR UPDATE TO balas_worker USING (chat.is_sweep()) WITH CHECK (chat.is_sweep());
GRANT SELECT, INSERT, UPDATE ON chat.assessments TO balas_api, balas_worker;

-- What came from the broker, so that a repetition changes nothing.
CREATE TABLE chat.inbound_events (
    user_id       uuid NOT NULL,
    event_id      text NOT NULL CHECK (char_length(event_id) <= 200),
    assessment_id uuid NOT NULL,
    type          text NOT NULL,
    received_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, event_id)
);
CREATE INDEX inbound_events_by_age ON chat.inbound_events (received_at);
ALTER TABLE chat.inbound_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE chat.inbound_events FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON chat.inbound_events TO balas_api, balas_worker
    USING (user_id = chat.current_user_id()) WITH CHECK (user_id = chat.current_user_id());
-- Forgetting what no broker repeats any more.
CREATE POLICY sweep_looks ON chat.inbound_events FOR SELECT TO balas_worker USING (chat.is_sweep());
CREATE POLICY sweep_forgets ON chat.inbound_events FOR DELETE TO balas_worker USING (chat.is_sweep());
GRANT SELECT, INSERT, DELETE ON chat.inbound_events TO balas_worker;

-- A stage tells of an assessment and of no generation. Workers of the previous version cannot read such a
-- row and leave it, with what they would have taken beside it, to those of this one.
ALTER TABLE chat.notifications
    ALTER COLUMN generation_id DROP NOT NULL,
    ADD COLUMN assessment_id uuid,
    ADD COLUMN stage text,
    ADD COLUMN language text,
    DROP CONSTRAINT notifications_type_check,
    -- Not validated, which would read the whole table under a lock: what is there passed a narrower check.
    ADD CONSTRAINT notifications_type_check CHECK (
        type IN ('chat.generation.completed', 'chat.generation.failed', 'chat.generation.cancelled',
                 'chat.assessment.stage', 'chat.support.escalated')) NOT VALID,
    ADD CONSTRAINT notifications_stage_has_assessment CHECK (
        type <> 'chat.assessment.stage' OR (assessment_id IS NOT NULL AND stage IS NOT NULL)) NOT VALID;
