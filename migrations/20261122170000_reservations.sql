-- Reservations last until the cost is known, also of what is no generation's own; totals are only written
-- where one is set; and counting goes on while anybody in the fleet wants it.

ALTER TABLE chat.budget_reservations
    -- The generation whose calls it is for, where that is not the one in its key.
    ADD COLUMN calls_of uuid,
    -- What is no generation's own is given back then at the latest.
    ADD COLUMN held_until timestamptz,
    -- Whether it is part of everybody's budgets, too.
    ADD COLUMN in_total_day boolean NOT NULL DEFAULT true,
    ADD COLUMN in_total_month boolean NOT NULL DEFAULT true;
GRANT UPDATE (calls_of, held_until) ON chat.budget_reservations TO balas_worker;

-- As before, but without a row for a total that is not set: everybody who spends would wait for its lock.
CREATE OR REPLACE FUNCTION chat.reserve_budget(generation uuid, person uuid, credits numeric,
                                               user_day numeric, user_month numeric, total_day numeric, total_month numeric)
RETURNS TABLE (refused_scope text, refused_period text, resets_at timestamptz, warned text[])
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    first date := date_trunc('month', (now() AT TIME ZONE 'UTC'))::date;
    part  record;
    used  numeric;
    warn  boolean;
BEGIN
    warned := '{}';
    FOR part IN SELECT * FROM (VALUES
        (1, 'total', 'day', today, total_day), (2, 'total', 'month', first, total_month),
        (3, 'user', 'day', today, user_day), (4, 'user', 'month', first, user_month))
        AS p (place, scope, period, starts_on, most) ORDER BY place
    LOOP
        CONTINUE WHEN part.scope = 'total' AND part.most IS NULL;
        IF part.scope = 'total' THEN
            INSERT INTO chat.budget_totals AS t (period, starts_on, reserved)
            VALUES (part.period, part.starts_on, credits)
            ON CONFLICT (period, starts_on) DO UPDATE SET reserved = t.reserved + EXCLUDED.reserved
            RETURNING t.reserved + t.spent, t.warned_at IS NULL INTO used, warn;
        ELSE
            INSERT INTO chat.budget_users AS u (user_id, period, starts_on, reserved)
            VALUES (person, part.period, part.starts_on, credits)
            ON CONFLICT (user_id, period, starts_on) DO UPDATE SET reserved = u.reserved + EXCLUDED.reserved
            RETURNING u.reserved + u.spent, u.warned_at IS NULL INTO used, warn;
        END IF;
        -- Who waits until it is free again waits longest for the longest period.
        IF used > part.most AND (refused_period IS NULL OR part.period = 'month') THEN
            refused_scope := part.scope;
            refused_period := part.period;
            resets_at := (part.starts_on + CASE part.period WHEN 'day' THEN interval '1 day' ELSE interval '1 month' END)
                         AT TIME ZONE 'UTC';
        END IF;
        IF warn AND used >= part.most * 0.8 THEN
            IF part.scope = 'total' THEN
                UPDATE chat.budget_totals t SET warned_at = now()
                WHERE t.period = part.period AND t.starts_on = part.starts_on;
            ELSE
                UPDATE chat.budget_users u SET warned_at = now()
                WHERE u.user_id = person AND u.period = part.period AND u.starts_on = part.starts_on;
            END IF;
            warned := warned || (part.scope || ' ' || part.period);
        END IF;
    END LOOP;
    IF refused_period IS NULL THEN
        INSERT INTO chat.budget_reservations (generation_id, user_id, credits, day, month, in_total_day, in_total_month)
        VALUES (generation, person, credits, today, first, total_day IS NOT NULL, total_month IS NOT NULL);
    ELSE
        UPDATE chat.budget_totals t SET reserved = t.reserved - credits
        WHERE (t.period = 'day' AND t.starts_on = today AND total_day IS NOT NULL)
           OR (t.period = 'month' AND t.starts_on = first AND total_month IS NOT NULL);
        UPDATE chat.budget_users u SET reserved = u.reserved - credits
        WHERE u.user_id = person AND (u.period, u.starts_on) IN (('day', today), ('month', first));
    END IF;
    RETURN NEXT;
END $$;

-- Adds what a call cost: to everybody's where there is such a row, which a set total has made before the
-- period begins, and to its person's.
CREATE OR REPLACE FUNCTION chat.spend_budget() RETURNS trigger LANGUAGE plpgsql
AS $$
DECLARE
    credits numeric := COALESCE(NEW.cost_credits, 0)
                       - CASE TG_OP WHEN 'UPDATE' THEN COALESCE(OLD.cost_credits, 0) ELSE 0 END;
    today date := (now() AT TIME ZONE 'UTC')::date;
    first date := date_trunc('month', (now() AT TIME ZONE 'UTC'))::date;
BEGIN
    UPDATE chat.budget_totals t SET spent = t.spent + credits WHERE t.period = 'day' AND t.starts_on = today;
    UPDATE chat.budget_totals t SET spent = t.spent + credits WHERE t.period = 'month' AND t.starts_on = first;
    INSERT INTO chat.budget_users AS u (user_id, period, starts_on, spent) VALUES (NEW.user_id, 'day', today, credits)
    ON CONFLICT (user_id, period, starts_on) DO UPDATE SET spent = u.spent + EXCLUDED.spent;
    INSERT INTO chat.budget_users AS u (user_id, period, starts_on, spent) VALUES (NEW.user_id, 'month', first, credits)
    ON CONFLICT (user_id, period, starts_on) DO UPDATE SET spent = u.spent + EXCLUDED.spent;
    RETURN NULL;
END $$;

-- When anybody last wanted the spending counted. Who has no budgets, because they were taken away or because
-- one process was started without them, does not end it for those who have some.
CREATE TABLE chat.budget_keeping (
    only_one  boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    wanted_at timestamptz NOT NULL
);
INSERT INTO chat.budget_keeping (wanted_at)
SELECT CASE WHEN t.tgenabled = 'D' THEN '-infinity' ELSE now() END FROM pg_trigger t
WHERE t.tgrelid = 'chat.usage_tracking'::regclass AND t.tgname = 'spend_budget_late';

CREATE OR REPLACE FUNCTION chat.switch_budgets(wanted boolean) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = chat, pg_temp SET lock_timeout = '250ms'
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('chat.switch_budgets'));
    IF wanted THEN
        UPDATE chat.budget_keeping k SET wanted_at = now() WHERE k.wanted_at < now() - interval '10 minutes';
    ELSIF EXISTS (SELECT FROM chat.budget_keeping k WHERE k.wanted_at > now() - interval '1 day') THEN
        RETURN false;
    END IF;
    IF wanted = (SELECT t.tgenabled <> 'D' FROM pg_trigger t
                 WHERE t.tgrelid = 'chat.usage_tracking'::regclass AND t.tgname = 'spend_budget_late') THEN
        RETURN false;
    END IF;
    IF wanted THEN
        ALTER TABLE chat.usage_tracking ENABLE TRIGGER spend_budget;
        ALTER TABLE chat.usage_tracking ENABLE TRIGGER spend_budget_late;
    ELSE
        ALTER TABLE chat.usage_tracking DISABLE TRIGGER spend_budget;
        ALTER TABLE chat.usage_tracking DISABLE TRIGGER spend_budget_late;
    END IF;
    RETURN true;
END $$;

-- Gives back what is reserved for generations that have ended, or that are gone, once the cost of all their
-- calls is known, nobody asks for it any more, or they are older than `patience`. Who was stopped a moment ago
-- may not have booked the last call yet. It looks at so many reservations after `last_seen` and returns the last of
-- them, none at the end.
CREATE FUNCTION chat.release_budgets(last_seen uuid, most integer, patience interval)
RETURNS TABLE (seen uuid, released bigint)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    looked uuid[];
    gone   uuid[];
    part   record;
BEGIN
    looked := ARRAY(SELECT r.generation_id FROM chat.budget_reservations r
                    WHERE r.generation_id > last_seen ORDER BY r.generation_id LIMIT most);
    gone := ARRAY(SELECT r.generation_id FROM chat.budget_reservations r
                  WHERE r.generation_id = ANY (looked) AND COALESCE(r.held_until, '-infinity') <= now()
                    AND NOT EXISTS (SELECT FROM chat.generations g WHERE g.id = r.generation_id
                                      AND (g.finished_at IS NULL OR g.status = 'cancelled'
                                                                    AND g.finished_at > now() - interval '3 seconds')
                                    OFFSET 0));
    gone := ARRAY(SELECT r.generation_id FROM chat.budget_reservations r
                  WHERE r.generation_id = ANY (gone)
                    AND NOT EXISTS (SELECT FROM chat.attempts a
                                    WHERE a.generation_id = COALESCE(r.calls_of, r.generation_id)
                                      AND a.cost_credits IS NULL AND a.upstream_id IS NOT NULL
                                      AND (a.wasted OR a.outcome IN ('running', 'completed'))
                                      AND a.started_at > now() - patience
                                      AND NOT EXISTS (SELECT FROM chat.cost_questions q
                                                      WHERE q.call_id = a.id AND q.given_up_at IS NOT NULL)
                                    OFFSET 0));
    seen := CASE WHEN cardinality(looked) = most THEN looked[most] END;
    released := cardinality(gone);
    -- Everybody's before anybody's: see where the tables are made.
    FOR part IN
        SELECT p.period, p.starts_on, sum(p.credits) AS credits FROM chat.budget_reservations r
        CROSS JOIN LATERAL (VALUES ('day', r.day, r.credits, r.in_total_day), ('month', r.month, r.credits, r.in_total_month))
                   AS p (period, starts_on, credits, is_in)
        WHERE r.generation_id = ANY (gone) AND p.is_in GROUP BY 1, 2 ORDER BY 1, 2
    LOOP
        UPDATE chat.budget_totals t SET reserved = t.reserved - part.credits
        WHERE t.period = part.period AND t.starts_on = part.starts_on;
    END LOOP;
    FOR part IN
        SELECT r.user_id, p.period, p.starts_on, sum(p.credits) AS credits FROM chat.budget_reservations r
        CROSS JOIN LATERAL (VALUES ('day', r.day, r.credits), ('month', r.month, r.credits)) AS p (period, starts_on, credits)
        WHERE r.generation_id = ANY (gone) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    LOOP
        UPDATE chat.budget_users u SET reserved = u.reserved - part.credits
        WHERE u.user_id = part.user_id AND u.period = part.period AND u.starts_on = part.starts_on;
    END LOOP;
    DELETE FROM chat.budget_reservations r WHERE r.generation_id = ANY (gone);
    RETURN NEXT;
END $$;
REVOKE ALL ON FUNCTION chat.release_budgets(uuid, integer, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.release_budgets(uuid, integer, interval) TO balas_worker;

-- Workers of the version before give back by the same rules.
CREATE OR REPLACE FUNCTION chat.release_budgets(last_seen uuid, most integer)
RETURNS TABLE (seen uuid, released bigint)
LANGUAGE sql VOLATILE
AS $$ SELECT * FROM chat.release_budgets(last_seen, most, interval '1 day') $$;
