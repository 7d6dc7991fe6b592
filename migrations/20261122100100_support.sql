-- Who answers in a conversation of the help desk, and telling the notification service when a person should.
ALTER TABLE chat.conversations
    -- None is the bot, in every conversation; only those of the help desk have another one.
    ADD COLUMN support_state text,
    -- What is known of the hand-off: why and since when, who answers, what they left for the bot, how it ended.
    ADD COLUMN support jsonb,
    -- Not validated, which would read the whole table under a lock: no old row has the column.
    ADD CONSTRAINT conversations_support_state_check
        CHECK (support_state IN ('bot', 'waiting_for_human', 'human', 'resolved')) NOT VALID;

-- One more type. Not validated, which would read the table under a lock: every old row has an older type.
ALTER TABLE chat.notifications
    DROP CONSTRAINT notifications_type_check,
    ADD CONSTRAINT notifications_type_check CHECK (
        type IN ('chat.generation.completed', 'chat.generation.failed', 'chat.generation.cancelled',
                 'chat.assessment.stage', 'chat.support.escalated')) NOT VALID;

-- As before, and for an answer of the help desk that says so, that a person should take over. It is a
-- notification of its own, told after the one of the answer.
CREATE OR REPLACE FUNCTION chat.notify_ended() RETURNS trigger LANGUAGE plpgsql
AS $$
DECLARE
    -- A UUIDv7 of this moment. All destinations get the same one.
    new_id uuid := (lpad(to_hex(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
                    || '7' || substr(gen_random_uuid()::text, 16))::uuid;
BEGIN
    INSERT INTO chat.notifications (id, destination, user_id, conversation_id, generation_id, type, occurred_at,
                                    request_id, traceparent)
    SELECT new_id, d.name, NEW.user_id, NEW.conversation_id, NEW.id,
           CASE NEW.status WHEN 'failed' THEN 'chat.generation.failed'
                           WHEN 'cancelled' THEN 'chat.generation.cancelled'
                           ELSE 'chat.generation.completed' END,
           COALESCE(NEW.finished_at, now()), NEW.request_id, NEW.traceparent
    FROM chat.notification_destinations d WHERE d.wanted;
    IF NEW.context_type = 'support' AND NEW.assistant_message_id IS NOT NULL THEN
        new_id := (lpad(to_hex(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
                   || '7' || substr(gen_random_uuid()::text, 16))::uuid;
        INSERT INTO chat.notifications (id, destination, user_id, conversation_id, generation_id, type, occurred_at,
                                        request_id, traceparent)
        SELECT new_id, d.name, NEW.user_id, NEW.conversation_id, NEW.id, 'chat.support.escalated',
               COALESCE(NEW.finished_at, now()), NEW.request_id, NEW.traceparent
        FROM chat.notification_destinations d
        JOIN chat.messages m ON m.id = NEW.assistant_message_id AND m.conversation_id = NEW.conversation_id
        WHERE d.wanted AND m.metadata @> '{"support": {"should_escalate": true}}';
    END IF;
    RETURN NULL;
END $$;
