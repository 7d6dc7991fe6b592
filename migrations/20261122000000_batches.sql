-- Workers read histories and store replies for all users together, one statement for many of them.
-- Whose row it is, such a statement takes from the generation and never from a parameter.

CREATE POLICY sweep_read ON chat.conversations FOR SELECT TO balas_worker USING (chat.is_sweep());
CREATE POLICY sweep_write ON chat.conversations FOR UPDATE TO balas_worker
    USING (chat.is_sweep()) WITH CHECK (chat.is_sweep());
CREATE POLICY sweep ON chat.messages TO balas_worker USING (chat.is_sweep()) WITH CHECK (chat.is_sweep());
CREATE POLICY sweep ON chat.usage_tracking FOR INSERT TO balas_worker WITH CHECK (chat.is_sweep());
-- The note that a call began is an insert; its end updates the row.
DROP POLICY sweep ON chat.attempts;
CREATE POLICY sweep ON chat.attempts TO balas_worker USING (chat.is_sweep()) WITH CHECK (chat.is_sweep());
