-- Waits that know their length, downloads whose time counts only while they are read, claim tokens that are
-- never given twice, and counts of items that do not read the items.

-- The longest that `due_at` may lie ahead, in seconds: further ahead, it was written by a clock that was wrong.
ALTER TABLE queue_items ADD COLUMN wait_s double precision NOT NULL DEFAULT 0;
ALTER TABLE queue_items DISABLE TRIGGER queue_items_moves;
UPDATE queue_items SET wait_s = extract(epoch FROM due_at - now())
 WHERE stage IN ('queued', 'retry_wait', 'ready') AND due_at > now();
ALTER TABLE queue_items ENABLE TRIGGER queue_items_moves;
-- By when each wait was written, in a form and with a condition that no other query has: what is due is taken in
-- the order of the queue.
CREATE INDEX queue_items_waits ON queue_items (((due_at AT TIME ZONE 'UTC') - make_interval(secs => wait_s)))
    WHERE lease_until IS NULL AND completed_at IS NULL;

-- From now on `looked_at` is when any download was read last.
UPDATE tickets SET looked_at = now() WHERE state IN ('open', 'withdrawing') AND looked_at IS NULL;

-- 63 random bits, of the first and last digits of two random UUIDs. A number that grows would be given again
-- after lost commits or from a restored copy, and two workers would write to the same file. One expression, so
-- that PostgreSQL puts it into the statement.
CREATE FUNCTION new_fence() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT ('x' || left(gen_random_uuid()::text, 8) || right(gen_random_uuid()::text, 8))::bit(64)::bigint
           & 9223372036854775807
$$;

-- How many items each stage and priority has: the sum of `change`. Each statement adds rows, so that no two of
-- them wait for one; the reaper replaces them by their sums.
CREATE TABLE item_counts (
    stage    text NOT NULL,
    priority integer NOT NULL,
    change   bigint NOT NULL
);
INSERT INTO item_counts (stage, priority, change)
SELECT stage, priority, count(*) FROM queue_items GROUP BY stage, priority;

CREATE OR REPLACE FUNCTION record_moves() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong text;
BEGIN
    -- Not LIMIT 1: for one row PostgreSQL would compare every row with every other.
    SELECT min(format('item %s: %s -> %s', n.id, o.stage, n.stage)) INTO wrong
      FROM moved n JOIN before o ON o.id = n.id
      LEFT JOIN transitions t
             ON t.life = 'item' AND t.from_state = o.stage AND t.to_state = n.stage
     WHERE n.stage <> o.stage AND t.life IS NULL;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'not in the transition table: %', wrong USING ERRCODE = 'check_violation';
    END IF;
    INSERT INTO events (kind, item_id, actor, from_stage, stage, status, attempt, retry_count,
                        reason, error_type, data)
    SELECT 'item', n.id, n.actor, o.stage, n.stage, n.status, n.attempt, n.retry_count,
           n.reason, n.error_type,
           CASE WHEN n.ticket_id IS NULL THEN '{}'::jsonb
                ELSE jsonb_strip_nulls(jsonb_build_object(
                    'ticket', n.ticket_id, 'torrentino_ticket_id', n.torrentino_ticket_id)) END
    FROM moved n JOIN before o ON o.id = n.id
    WHERE n.stage <> o.stage
    ORDER BY n.seq;
    INSERT INTO item_counts (stage, priority, change)
    SELECT c.stage, c.priority, sum(c.change)
      FROM (SELECT stage, priority, 1 AS change FROM moved
            UNION ALL SELECT stage, priority, -1 FROM before) c
     GROUP BY c.stage, c.priority HAVING sum(c.change) <> 0;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION record_arrivals() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO events (kind, item_id, actor, stage, status, attempt, retry_count, reason)
    SELECT 'item', n.id, n.actor, n.stage, n.status, n.attempt, n.retry_count, n.reason
    FROM arrived n ORDER BY n.seq;
    INSERT INTO item_counts (stage, priority, change)
    SELECT stage, priority, count(*) FROM arrived GROUP BY stage, priority;
    RETURN NULL;
END $$;

CREATE FUNCTION record_removals() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO item_counts (stage, priority, change)
    SELECT stage, priority, -count(*) FROM removed GROUP BY stage, priority;
    RETURN NULL;
END $$;
CREATE TRIGGER queue_items_removals AFTER DELETE ON queue_items
    REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION record_removals();
