-- A worker that starts asks whether others of its name live, before it takes what they hold for left
-- behind. Those that live sign the register.
ALTER TABLE chat.workers ADD COLUMN called_at timestamptz;
