-- A hand-off is noted, and told, by the statement that ends the generation. Before, it was noted when the question
-- was read, so a generation that then ran out of time left a conversation waiting of which nobody was told; and one
-- that nobody came to read left it with the assistant, while its client was told that a person should take over.
--
-- Previous versions still note it early; what they noted is left alone.

-- Why a person should take over is noted with the question in whatever scope ends the generation.
CREATE POLICY sweep_update ON chat.support_questions FOR UPDATE TO balas_worker
    USING (chat.is_sweep()) WITH CHECK (chat.is_sweep());

CREATE FUNCTION chat.support_ended() RETURNS trigger LANGUAGE plpgsql
AS $$
DECLARE
    why text;
    new_id uuid;
BEGIN
    IF NEW.status = 'failed' THEN
        why := 'tool_failure';
    ELSE
        SELECT COALESCE(m.metadata #>> '{support,escalation_reason}', 'tool_failure') INTO why
        FROM chat.messages m
        WHERE m.id = NEW.assistant_message_id AND m.conversation_id = NEW.conversation_id
          AND m.metadata @> '{"support": {"should_escalate": true}}';
    END IF;
    IF why IS NULL THEN
        RETURN NULL;
    END IF;
    UPDATE chat.support_questions q SET escalation = COALESCE(q.escalation, why)
    WHERE q.message_id = NEW.user_message_id AND q.user_id = NEW.user_id;
    UPDATE chat.conversations c
    SET support_state = 'waiting_for_human', updated_at = now(),
        support = COALESCE(c.support, '{}') || jsonb_build_object('reason', why, 'generation_id', NEW.id,
                                                                'escalated_at', now())
    WHERE c.id = NEW.conversation_id AND c.user_id = NEW.user_id AND c.status <> 'deleted'
      AND COALESCE(c.support_state, 'bot') IN ('bot', 'resolved');
    -- An answer that hands over is told of by chat.notify_ended, whoever has the conversation.
    IF FOUND AND NEW.status = 'failed' THEN
        new_id := (lpad(to_hex(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
                   || '7' || substr(gen_random_uuid()::text, 16))::uuid;
        INSERT INTO chat.notifications (id, destination, user_id, conversation_id, generation_id, type, occurred_at,
                                        request_id, traceparent)
        SELECT new_id, d.name, NEW.user_id, NEW.conversation_id, NEW.id, 'chat.support.escalated',
               COALESCE(NEW.finished_at, now()), NEW.request_id, NEW.traceparent
        FROM chat.notification_destinations d WHERE d.wanted;
    END IF;
    RETURN NULL;
END $$;

-- Named after notify_ended, so that the end is told before the hand-off. For all other conversations it costs a look
-- at two columns.
CREATE TRIGGER support_ended AFTER UPDATE OF status ON chat.generations FOR EACH ROW
    WHEN (NEW.context_type = 'support' AND OLD.status IN ('queued', 'in_progress')
          AND NEW.status IN ('completed', 'incomplete', 'failed') AND NEW.kind <> 'title')
    EXECUTE FUNCTION chat.support_ended();
