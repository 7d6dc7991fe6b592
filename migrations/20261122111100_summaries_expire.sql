-- Summaries hold what was said, so they go with the retention period as well.
CREATE INDEX conversation_summaries_by_age ON chat.conversation_summaries (created_at);
CREATE POLICY sweep_looks ON chat.conversation_summaries FOR SELECT TO balas_worker USING (chat.is_sweep());
CREATE POLICY sweep_expires ON chat.conversation_summaries FOR DELETE TO balas_worker USING (chat.is_sweep());
GRANT DELETE ON chat.conversation_summaries TO balas_worker;
