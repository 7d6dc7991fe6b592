-- Summaries of what a conversation's prompts have no room for any more.

CREATE TABLE chat.conversation_summaries (
    conversation_id uuid NOT NULL REFERENCES chat.conversations (id) ON DELETE CASCADE,
    -- Counts up: each holds what the one before it held, and more.
    version         integer NOT NULL CHECK (version > 0),
    user_id         uuid NOT NULL,
    -- The message up to which it tells, with the replies to it.
    up_to           uuid NOT NULL,
    content         text NOT NULL,
    token_count     integer NOT NULL CHECK (token_count >= 0),
    model           text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (conversation_id, version)
);
CREATE INDEX conversation_summaries_by_user ON chat.conversation_summaries (user_id);

ALTER TABLE chat.conversation_summaries ENABLE ROW LEVEL SECURITY;
ALTER TABLE chat.conversation_summaries FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON chat.conversation_summaries TO balas_api, balas_worker
    USING (user_id = chat.current_user_id()) WITH CHECK (user_id = chat.current_user_id());
GRANT SELECT, INSERT ON chat.conversation_summaries TO balas_worker;
GRANT SELECT ON chat.conversation_summaries TO balas_api;

-- Their calls are booked like all others. Not validated: every row met the narrower rule.
ALTER TABLE chat.attempts DROP CONSTRAINT attempts_operation_check;
ALTER TABLE chat.attempts ADD CONSTRAINT attempts_operation_check
    CHECK (operation IN ('completion', 'embedding', 'classification', 'title', 'summary')) NOT VALID;
ALTER TABLE chat.usage_tracking DROP CONSTRAINT usage_tracking_operation_check;
ALTER TABLE chat.usage_tracking ADD CONSTRAINT usage_tracking_operation_check
    CHECK (operation IN ('completion', 'embedding', 'classification', 'title', 'summary')) NOT VALID;
