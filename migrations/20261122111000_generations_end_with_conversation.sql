-- What ends a conversation ends its generations. The foreign key did that by reading all generations for each
-- conversation, because an index for it would be written three times a message; the trigger finds them by their person.
-- That none is made for a conversation that does not exist, the statements that make them see to: each locks its
-- conversation first.
CREATE FUNCTION chat.end_generations() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM chat.generations g USING gone
    WHERE g.user_id = gone.user_id AND g.id > gone.id AND g.conversation_id = gone.id;
    RETURN NULL;
END $$;
CREATE TRIGGER end_generations AFTER DELETE ON chat.conversations REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION chat.end_generations();
ALTER TABLE chat.generations DROP CONSTRAINT generations_conversation_id_fkey;
