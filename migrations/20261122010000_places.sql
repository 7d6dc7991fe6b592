-- At most so many generations of one person are active at a time; the others wait parked, and are
-- woken oldest first.

-- What is parked is due never, so every statement that asks for due work passes over it, those of
-- older versions too, and finds it at the end of its index.
ALTER TABLE chat.generations
    -- What a queued generation waits for: that those before it in its conversation end, or a place
    -- of its person.
    ADD COLUMN parked text,
    -- Not validated, which would read the whole table under a lock: no old row has the column.
    -- And no constraint ties it to the status or to when it is due: a statement that was begun before
    -- a generation was woken finds its old version first, and Postgres checks constraints on what that
    -- would become before it looks for the new one. What wakes changes both at once.
    ADD CONSTRAINT generations_parked_check CHECK (parked IN ('turn', 'place')) NOT VALID;

ALTER TABLE chat.queues
    -- Generations that wait for their turn or a place; `depth` has the others.
    ADD COLUMN parked bigint NOT NULL DEFAULT 0;

-- Gives the free ones of each person's places to those who have waited longest. A generation whose
-- turn came in one of the conversations, because what was before it has ended, waits with them from
-- now on. Returns what may be claimed now.
--
-- Nobody is waited for: what somebody else has locked is left to them, or to the sweep that calls
-- this for everybody who may have been forgotten.
CREATE FUNCTION chat.wake(people uuid[], conversations uuid[], places bigint)
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
        WHERE g.status = 'queued' AND g.parked = 'turn'
        FOR NO KEY UPDATE OF g SKIP LOCKED
    )
    UPDATE chat.generations g SET parked = 'place' FROM free f WHERE g.id = f.id;

    RETURN QUERY
    WITH waiting AS MATERIALIZED (
        SELECT DISTINCT p.id FROM unnest(people) AS p (id)
        WHERE EXISTS (SELECT FROM chat.generations g
                      WHERE g.user_id = p.id AND g.parked = 'place' AND g.status = 'queued')
    ), chosen AS MATERIALIZED (
        SELECT w.id FROM waiting p
        CROSS JOIN LATERAL (
            SELECT count(*) AS many FROM (
                SELECT FROM chat.generations g
                WHERE g.user_id = p.id AND g.status IN ('queued', 'in_progress') AND g.parked IS NULL
                  AND g.kind <> 'title' LIMIT wake.places
            ) active
        ) taken
        CROSS JOIN LATERAL (
            SELECT g.id FROM chat.generations g
            WHERE g.user_id = p.id AND g.parked = 'place' AND g.status = 'queued'
            ORDER BY g.id LIMIT wake.places - taken.many
            FOR NO KEY UPDATE SKIP LOCKED
        ) w
    )
    UPDATE chat.generations g SET parked = NULL, run_at = now() FROM chosen c WHERE g.id = c.id
    RETURNING g.id, g.user_id, g.priority;
END $$;
REVOKE ALL ON FUNCTION chat.wake(uuid[], uuid[], bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.wake(uuid[], uuid[], bigint) TO balas_api, balas_worker;

-- What is before a generation of this person that waits for its turn or for a place: those that are
-- parked as well and older, those that run and must end first, and the unfinished ones before it in
-- its conversation. Each is counted up to 1000.
CREATE FUNCTION chat.ahead(generation uuid, person uuid, conversation uuid, waits_for text)
RETURNS TABLE (parked bigint, running bigint, turns bigint)
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN QUERY SELECT
        (SELECT count(*) FROM (
            (SELECT FROM chat.generations g
             WHERE g.user_id = person AND g.parked = 'place' AND g.status = 'queued' AND g.id < generation LIMIT 1000)
            UNION ALL
            (SELECT FROM chat.generations g
             WHERE g.user_id = person AND g.parked = 'turn' AND g.status = 'queued' AND g.id < generation LIMIT 1000)
            LIMIT 1000) older),
        CASE WHEN waits_for = 'turn' THEN
            (SELECT count(*) FROM chat.generations g
             WHERE g.conversation_id = conversation AND g.status = 'in_progress' AND g.kind <> 'title')
        ELSE
            (SELECT count(*) FROM (
                SELECT FROM chat.generations g
                WHERE g.user_id = person AND g.status IN ('queued', 'in_progress') AND g.parked IS NULL
                  AND g.kind <> 'title' AND g.status = 'in_progress' LIMIT 1000) active)
        END,
        (SELECT count(*) FROM (
            SELECT FROM chat.generations g
            WHERE g.conversation_id = conversation AND g.status IN ('queued', 'in_progress') AND g.kind <> 'title'
              AND g.id < generation LIMIT 1000) before);
END $$;
REVOKE ALL ON FUNCTION chat.ahead(uuid, uuid, uuid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.ahead(uuid, uuid, uuid, text) TO balas_api, balas_worker;

GRANT SELECT (parked) ON chat.generations TO balas_operator;
