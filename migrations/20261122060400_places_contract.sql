-- Nothing reads these any more. An older version that still serves finds its rows without them, only slower.
DROP INDEX IF EXISTS chat.generations_active;
DROP INDEX IF EXISTS chat.generations_parked;
DROP INDEX IF EXISTS chat.generations_turn;
