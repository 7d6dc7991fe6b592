-- What is counted where it happens and added up for the whole fleet: how many, how many of them failed, and
-- how long they took. Each process adds what it has counted every few seconds, so a row is a day of one
-- figure, however much was done.
CREATE TABLE chat.figures (
    -- By UTC.
    day    date NOT NULL,
    name   text NOT NULL,
    calls  bigint NOT NULL,
    failed bigint NOT NULL,
    sum_ms double precision NOT NULL,
    -- Calls by how long they took; shared::figures says which bucket is what.
    buckets bigint[] NOT NULL,
    PRIMARY KEY (day, name)
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE, DELETE ON chat.figures TO balas_worker;
GRANT SELECT, INSERT, UPDATE ON chat.figures TO balas_operator;

-- The vectors of questions that a worker remembers, and what they take.
ALTER TABLE chat.workers
    ADD COLUMN cache_entries bigint,
    ADD COLUMN cache_bytes bigint;
