-- A scan may be ended by a person, also one that waits for a catalog that never comes.

ALTER TABLE scans DROP CONSTRAINT scans_state_check;
ALTER TABLE scans ADD CONSTRAINT scans_state_check
    CHECK (state IN ('waiting', 'running', 'done', 'refused', 'cancelled'));
