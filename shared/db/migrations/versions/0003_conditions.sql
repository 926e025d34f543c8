-- What each process's circuit breakers say, so that the statistics can tell what is paused.

ALTER TABLE conditions ADD COLUMN circuit text NOT NULL DEFAULT 'closed';
ALTER TABLE conditions ADD COLUMN alarm text;
ALTER TABLE conditions ADD COLUMN next_try_at timestamptz;
