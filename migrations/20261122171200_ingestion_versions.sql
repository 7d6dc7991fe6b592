-- Numbers what editors can see change of an ingestion, so that whoever follows one is told from where they left it, by
-- whichever replica they reach. Renewed leases are no news.
ALTER TABLE chat.knowledge_ingestions ADD COLUMN version integer NOT NULL DEFAULT 1;

CREATE FUNCTION chat.count_ingestion_version() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    NEW.version := OLD.version + 1;
    RETURN NEW;
END $$;

CREATE TRIGGER count_version BEFORE UPDATE ON chat.knowledge_ingestions FOR EACH ROW
    WHEN ((OLD.status, OLD.collection, OLD.encoding, OLD.delimiter, OLD.rows_read, OLD.rows_skipped, OLD.documents_new,
           OLD.documents_changed, OLD.documents_unchanged, OLD.chunks_total, OLD.chunks_embedded, OLD.chunks_failed,
           OLD.tokens, OLD.cost_credits, OLD.problem, OLD.started_at, OLD.finished_at)
          IS DISTINCT FROM
          (NEW.status, NEW.collection, NEW.encoding, NEW.delimiter, NEW.rows_read, NEW.rows_skipped, NEW.documents_new,
           NEW.documents_changed, NEW.documents_unchanged, NEW.chunks_total, NEW.chunks_embedded, NEW.chunks_failed,
           NEW.tokens, NEW.cost_credits, NEW.problem, NEW.started_at, NEW.finished_at))
    EXECUTE FUNCTION chat.count_ingestion_version();
