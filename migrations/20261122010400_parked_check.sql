-- A statement that was begun before a generation was woken finds its old version first, and Postgres
-- checks constraints on what that would become before it looks for the new one. So no constraint may
-- tie `parked` to the status or to when it is due; what wakes changes both at once, and tests look.
ALTER TABLE chat.generations DROP CONSTRAINT generations_parked_is_never_due;
