-- The functions of the places, on the indexes that only they use.

-- As before, and it takes those out of the way that ended while they were parked: an older version leaves
-- them so, where this one clears `parked` with the end.
CREATE OR REPLACE FUNCTION chat.wake(people uuid[], conversations uuid[], places bigint)
RETURNS TABLE (generation_id uuid, person uuid, queue text)
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    WITH head AS MATERIALIZED (
        SELECT DISTINCT o.id FROM unnest(conversations) AS c (id)
        CROSS JOIN LATERAL (
            SELECT g.id, g.parked FROM chat.generations g
            WHERE g.conversation_id = c.id AND g.status IN ('queued', 'in_progress') AND g.kind <> 'title'
            ORDER BY g.id LIMIT 1
        ) o
        WHERE o.parked = 'turn'
    ), free AS MATERIALIZED (
        SELECT g.id FROM head h JOIN chat.generations g ON g.id = h.id
        WHERE g.parked = 'turn'
        FOR NO KEY UPDATE OF g SKIP LOCKED
    )
    UPDATE chat.generations g SET parked = 'place' FROM free f WHERE g.id = f.id;

    RETURN QUERY
    WITH chosen AS MATERIALIZED (
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
    ), freed AS (
        UPDATE chat.generations g
        SET parked = NULL, run_at = CASE WHEN c.status = 'queued' THEN now() ELSE g.run_at END
        FROM chosen c WHERE g.id = c.id
        RETURNING g.id, g.user_id, g.priority, c.status
    )
    SELECT f.id, f.user_id, f.priority FROM freed f WHERE f.status = 'queued';
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
