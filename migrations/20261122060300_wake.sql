-- The functions of the places, on the indexes that only they use.

-- As before, and it takes those out of the way that ended while they were parked: an older version leaves
-- them so, where this one clears `parked` with the end.
--
-- Row by row, by the key: joined, the API's role would walk all generations of the person instead, which its
-- policy offers, and few are woken at a time.
CREATE OR REPLACE FUNCTION chat.wake(people uuid[], conversations uuid[], places bigint)
RETURNS TABLE (generation_id uuid, person uuid, queue text)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    head record;
    waiting record;
BEGIN
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

CREATE OR REPLACE FUNCTION chat.ahead(generation uuid, person uuid, conversation uuid, waits_for text)
RETURNS TABLE (parked bigint, running bigint, turns bigint)
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN QUERY SELECT
        (SELECT count(*) FROM (
            (SELECT FROM chat.generations g
             WHERE g.user_id = person AND g.parked = 'place' AND g.id < generation ORDER BY g.id LIMIT 1000)
            UNION ALL
            (SELECT FROM chat.generations g
             WHERE g.user_id = person AND g.parked = 'turn' AND g.id < generation ORDER BY g.id LIMIT 1000)
            LIMIT 1000) older),
        CASE WHEN waits_for = 'turn' THEN
            (SELECT count(*) FROM chat.generations g
             WHERE g.conversation_id = conversation AND g.status = 'in_progress' AND g.kind <> 'title')
        ELSE
            (SELECT count(*) FROM (
                SELECT FROM chat.generations g
                WHERE g.user_id = person AND g.finished_at IS NULL AND g.parked IS NULL AND g.kind <> 'title'
                  AND g.claim_token IS NOT NULL LIMIT 1000) active)
        END,
        (SELECT count(*) FROM (
            SELECT FROM chat.generations g
            WHERE g.conversation_id = conversation AND g.status IN ('queued', 'in_progress') AND g.kind <> 'title'
              AND g.id < generation LIMIT 1000) before);
END $$;
