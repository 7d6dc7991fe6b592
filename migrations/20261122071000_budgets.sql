-- Budgets: what each person and everybody together may spend in a day and in a month, by UTC.
--
-- Whoever locks more than one of these rows takes everybody's first, the day's before the month's, and is
-- served one at a time by that; nothing else is locked after them.

CREATE TABLE chat.budget_totals (
    period    text NOT NULL CHECK (period IN ('day', 'month')),
    starts_on date NOT NULL,
    -- Estimates of what is not done yet, and what was spent.
    reserved  numeric NOT NULL DEFAULT 0,
    spent     numeric NOT NULL DEFAULT 0,
    -- When somebody was told that most of it is used.
    warned_at timestamptz,
    PRIMARY KEY (period, starts_on)
) WITH (fillfactor = 50);

CREATE TABLE chat.budget_users (
    user_id   uuid NOT NULL,
    period    text NOT NULL CHECK (period IN ('day', 'month')),
    starts_on date NOT NULL,
    reserved  numeric NOT NULL DEFAULT 0,
    spent     numeric NOT NULL DEFAULT 0,
    warned_at timestamptz,
    PRIMARY KEY (user_id, period, starts_on)
) WITH (fillfactor = 70);

-- What is reserved for a generation until it has ended.
CREATE TABLE chat.budget_reservations (
    generation_id uuid PRIMARY KEY,
    user_id       uuid NOT NULL,
    credits       numeric NOT NULL,
    day           date NOT NULL,
    month         date NOT NULL
);
CREATE INDEX budget_reservations_by_user ON chat.budget_reservations (user_id);

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['budget_users', 'budget_reservations'] LOOP
        EXECUTE format('ALTER TABLE chat.%I ENABLE ROW LEVEL SECURITY', relation);
        EXECUTE format('ALTER TABLE chat.%I FORCE ROW LEVEL SECURITY', relation);
        EXECUTE format('CREATE POLICY own_rows ON chat.%I TO balas_api, balas_worker
                        USING (user_id = chat.current_user_id()) WITH CHECK (user_id = chat.current_user_id())', relation);
        EXECUTE format('CREATE POLICY sweep ON chat.%I TO balas_worker USING (chat.is_sweep()) WITH CHECK (chat.is_sweep())',
                       relation);
    END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE ON chat.budget_totals, chat.budget_users TO balas_api, balas_worker;
GRANT SELECT, INSERT ON chat.budget_reservations TO balas_api, balas_worker;
GRANT DELETE ON chat.budget_totals, chat.budget_users, chat.budget_reservations TO balas_worker;
GRANT SELECT ON chat.budget_totals TO balas_operator;

-- Reserves credits for a generation in all four budgets, or says which one is used up and until when,
-- and then changes nothing. A limit that is NULL is none. What is warned of is said once a period.
CREATE FUNCTION chat.reserve_budget(generation uuid, person uuid, credits numeric,
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
        INSERT INTO chat.budget_reservations (generation_id, user_id, credits, day, month)
        VALUES (generation, person, credits, today, first);
    ELSE
        UPDATE chat.budget_totals t SET reserved = t.reserved - credits
        WHERE (t.period, t.starts_on) IN (('day', today), ('month', first));
        UPDATE chat.budget_users u SET reserved = u.reserved - credits
        WHERE u.user_id = person AND (u.period, u.starts_on) IN (('day', today), ('month', first));
    END IF;
    RETURN NEXT;
END $$;

-- Adds what a call cost to all four, whoever books it and whenever it becomes known.
CREATE FUNCTION chat.spend_budget() RETURNS trigger LANGUAGE plpgsql
AS $$
DECLARE
    credits numeric := COALESCE(NEW.cost_credits, 0)
                       - CASE TG_OP WHEN 'UPDATE' THEN COALESCE(OLD.cost_credits, 0) ELSE 0 END;
    today date := (now() AT TIME ZONE 'UTC')::date;
    first date := date_trunc('month', (now() AT TIME ZONE 'UTC'))::date;
BEGIN
    INSERT INTO chat.budget_totals AS t (period, starts_on, spent) VALUES ('day', today, credits)
    ON CONFLICT (period, starts_on) DO UPDATE SET spent = t.spent + EXCLUDED.spent;
    INSERT INTO chat.budget_totals AS t (period, starts_on, spent) VALUES ('month', first, credits)
    ON CONFLICT (period, starts_on) DO UPDATE SET spent = t.spent + EXCLUDED.spent;
    INSERT INTO chat.budget_users AS u (user_id, period, starts_on, spent) VALUES (NEW.user_id, 'day', today, credits)
    ON CONFLICT (user_id, period, starts_on) DO UPDATE SET spent = u.spent + EXCLUDED.spent;
    INSERT INTO chat.budget_users AS u (user_id, period, starts_on, spent) VALUES (NEW.user_id, 'month', first, credits)
    ON CONFLICT (user_id, period, starts_on) DO UPDATE SET spent = u.spent + EXCLUDED.spent;
    RETURN NULL;
END $$;
CREATE TRIGGER spend_budget AFTER INSERT ON chat.usage_tracking FOR EACH ROW
    WHEN (NEW.cost_credits <> 0) EXECUTE FUNCTION chat.spend_budget();
CREATE TRIGGER spend_budget_late AFTER UPDATE OF cost_credits ON chat.usage_tracking FOR EACH ROW
    WHEN (NEW.cost_credits IS DISTINCT FROM OLD.cost_credits) EXECUTE FUNCTION chat.spend_budget();
ALTER TABLE chat.usage_tracking DISABLE TRIGGER spend_budget;
ALTER TABLE chat.usage_tracking DISABLE TRIGGER spend_budget_late;

-- Switches the counting on or off. It runs as the owner, because who calls it owns nothing. Writers of usage
-- wait as long as this does, so it gives up soon: call it again. Returns whether anything changed.
CREATE FUNCTION chat.switch_budgets(wanted boolean) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = chat, pg_temp SET lock_timeout = '250ms'
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('chat.switch_budgets'));
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
REVOKE ALL ON FUNCTION chat.switch_budgets(boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.switch_budgets(boolean) TO balas_worker;

-- Gives back what is reserved for generations that have ended, or that are gone. It looks at so many
-- reservations after `last_seen` and returns the last of them, none at the end.
CREATE FUNCTION chat.release_budgets(last_seen uuid, most integer)
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
    gone := ARRAY(SELECT l.id FROM unnest(looked) AS l (id)
                  WHERE NOT EXISTS (SELECT FROM chat.generations g WHERE g.id = l.id AND g.finished_at IS NULL OFFSET 0));
    seen := CASE WHEN cardinality(looked) = most THEN looked[most] END;
    released := cardinality(gone);
    -- Everybody's before anybody's: see above.
    FOR part IN
        SELECT p.period, p.starts_on, sum(p.credits) AS credits FROM chat.budget_reservations r
        CROSS JOIN LATERAL (VALUES ('day', r.day, r.credits), ('month', r.month, r.credits)) AS p (period, starts_on, credits)
        WHERE r.generation_id = ANY (gone) GROUP BY 1, 2 ORDER BY 1, 2
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
REVOKE ALL ON FUNCTION chat.release_budgets(uuid, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.release_budgets(uuid, integer) TO balas_worker;
