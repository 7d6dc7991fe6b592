-- What was kept for ever: assessments whose conversation is gone, and the trail of operators.

CREATE POLICY sweep_expires ON chat.assessments FOR DELETE TO balas_worker USING (chat.is_sweep());
GRANT DELETE ON chat.assessments TO balas_worker;

CREATE POLICY sweep_looks ON chat.audit_log FOR SELECT TO balas_worker USING (chat.is_sweep());
CREATE POLICY sweep_expires ON chat.audit_log FOR DELETE TO balas_worker USING (chat.is_sweep());
-- Who did what to whom is none of its business.
GRANT SELECT (id), DELETE ON chat.audit_log TO balas_worker;

-- A trail that whoever is in a worker could wipe would be none: what is younger than a month stays.
CREATE FUNCTION chat.keep_trail() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    IF OLD.at > now() - interval '30 days' THEN
        RAISE EXCEPTION 'a trail of less than 30 days is not removed' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER keep_trail BEFORE DELETE ON chat.audit_log FOR EACH ROW EXECUTE FUNCTION chat.keep_trail();
