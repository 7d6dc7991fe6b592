-- As before, and it ends at once where nothing of these people is parked.
CREATE OR REPLACE FUNCTION chat.wake(people uuid[], conversations uuid[], places bigint)
RETURNS TABLE (generation_id uuid, person uuid, queue text)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    head record;
    waiting record;
BEGIN
    -- After most ends nobody waits, and one look at an index says so.
    IF NOT EXISTS (SELECT FROM chat.generations g WHERE g.user_id = ANY (people) AND g.parked IS NOT NULL) THEN
        RETURN;
    END IF;

    FOR head IN
        SELECT o.id FROM unnest(conversations) AS c (id)
        CROSS JOIN LATERAL (
            SELECT g.id, g.parked FROM chat.generations g
            WHERE g.conversation_id = c.id AND g.status IN ('queued', 'in_progress') AND g.kind <> 'title'
            ORDER BY g.id LIMIT 1
        ) o
        WHERE o.parked = 'turn'
    LOOP
        PERFORM FROM chat.generations g WHERE g.id = head.id AND g.parked || '' = 'turn'
        FOR NO KEY UPDATE SKIP LOCKED;
        IF FOUND THEN
            UPDATE chat.generations g SET parked = 'place' WHERE g.id = head.id;
        END IF;
    END LOOP;

    FOR waiting IN
        SELECT w.* FROM (SELECT DISTINCT p.id FROM unnest(people) AS p (id)) p
        CROSS JOIN LATERAL (
            SELECT g.id FROM chat.generations g
            WHERE g.user_id = p.id AND g.parked = 'place' ORDER BY g.id LIMIT 1
        ) first
        CROSS JOIN LATERAL (
            SELECT count(*) AS many FROM (
                SELECT FROM chat.generations g
                WHERE g.user_id = p.id AND g.finished_at IS NULL AND g.parked IS NULL AND g.kind <> 'title'
                LIMIT wake.places
            ) active
        ) taken
        CROSS JOIN LATERAL (
            SELECT g.id, g.status FROM chat.generations g
            WHERE g.user_id = p.id AND g.parked = 'place'
            ORDER BY g.id LIMIT wake.places - taken.many
            FOR NO KEY UPDATE SKIP LOCKED
        ) w
    LOOP
        UPDATE chat.generations g
        SET parked = NULL, run_at = CASE WHEN g.status = 'queued' THEN now() ELSE g.run_at END
        WHERE g.id = waiting.id
        RETURNING g.id, g.user_id, g.priority INTO generation_id, person, queue;
        IF FOUND AND waiting.status = 'queued' THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;
