-- Who says which language a person speaks, so that somebody who knows it better may say otherwise. None beside
-- a language is the profile, the only one that was asked until now.
ALTER TABLE chat.assessments
    ADD COLUMN language_from text,
    -- Not validated, which would read the whole table under a lock: no old row has the column.
    ADD CONSTRAINT assessments_language_from_check
        CHECK (language_from IN ('default', 'description', 'client', 'words', 'profile')) NOT VALID;
