-- The transition tables of shared/states.py, enforced: what moves a row may only follow an edge of them,
-- and an item's status follows from its stage.

CREATE TABLE transitions (
    life       text NOT NULL CHECK (life IN ('item', 'download', 'scan')),
    from_state text NOT NULL,
    to_state   text NOT NULL,
    PRIMARY KEY (life, from_state, to_state)
);
INSERT INTO transitions (life, from_state, to_state) VALUES
    ('download', 'closed', 'withdrawing'),
    ('download', 'intent', 'closed'),
    ('download', 'intent', 'open'),
    ('download', 'intent', 'withdrawing'),
    ('download', 'open', 'closed'),
    ('download', 'open', 'withdrawing'),
    ('download', 'withdrawing', 'closed'),
    ('item', 'converting', 'completed'),
    ('item', 'converting', 'failed'),
    ('item', 'converting', 'queued'),
    ('item', 'converting', 'ready'),
    ('item', 'converting', 'retry_wait'),
    ('item', 'downloading', 'failed'),
    ('item', 'downloading', 'needs_approval'),
    ('item', 'downloading', 'processing'),
    ('item', 'downloading', 'queued'),
    ('item', 'downloading', 'ready'),
    ('item', 'downloading', 'retry_wait'),
    ('item', 'downloading', 'searching'),
    ('item', 'failed', 'queued'),
    ('item', 'fetching', 'completed'),
    ('item', 'fetching', 'failed'),
    ('item', 'fetching', 'needs_choice'),
    ('item', 'fetching', 'queued'),
    ('item', 'fetching', 'ready'),
    ('item', 'fetching', 'retry_wait'),
    ('item', 'fetching', 'verifying'),
    ('item', 'needs_approval', 'downloading'),
    ('item', 'needs_approval', 'failed'),
    ('item', 'needs_approval', 'processing'),
    ('item', 'needs_approval', 'queued'),
    ('item', 'needs_approval', 'ready'),
    ('item', 'needs_approval', 'retry_wait'),
    ('item', 'needs_approval', 'searching'),
    ('item', 'needs_choice', 'failed'),
    ('item', 'needs_choice', 'ready'),
    ('item', 'needs_choice', 'retry_wait'),
    ('item', 'processing', 'downloading'),
    ('item', 'processing', 'failed'),
    ('item', 'processing', 'needs_approval'),
    ('item', 'processing', 'queued'),
    ('item', 'processing', 'ready'),
    ('item', 'processing', 'retry_wait'),
    ('item', 'processing', 'searching'),
    ('item', 'queued', 'completed'),
    ('item', 'queued', 'failed'),
    ('item', 'queued', 'searching'),
    ('item', 'queued', 'ticketing'),
    ('item', 'ready', 'failed'),
    ('item', 'ready', 'fetching'),
    ('item', 'retry_wait', 'completed'),
    ('item', 'retry_wait', 'failed'),
    ('item', 'retry_wait', 'searching'),
    ('item', 'retry_wait', 'ticketing'),
    ('item', 'searching', 'downloading'),
    ('item', 'searching', 'failed'),
    ('item', 'searching', 'needs_approval'),
    ('item', 'searching', 'processing'),
    ('item', 'searching', 'queued'),
    ('item', 'searching', 'ready'),
    ('item', 'searching', 'retry_wait'),
    ('item', 'ticketing', 'failed'),
    ('item', 'ticketing', 'queued'),
    ('item', 'ticketing', 'retry_wait'),
    ('item', 'ticketing', 'searching'),
    ('item', 'verifying', 'completed'),
    ('item', 'verifying', 'converting'),
    ('item', 'verifying', 'failed'),
    ('item', 'verifying', 'queued'),
    ('item', 'verifying', 'ready'),
    ('item', 'verifying', 'retry_wait'),
    ('scan', 'running', 'cancelled'),
    ('scan', 'running', 'done'),
    ('scan', 'running', 'refused'),
    ('scan', 'waiting', 'cancelled'),
    ('scan', 'waiting', 'running');

-- Until every worker is of this release, one of the release before still writes the old name.
CREATE FUNCTION derive_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.stage = 'held' THEN
        NEW.stage := 'needs_choice';
    END IF;
    NEW.status := CASE
        WHEN NEW.stage IN ('queued', 'retry_wait') THEN 'PENDING'
        WHEN NEW.stage IN ('ticketing', 'searching', 'needs_approval', 'downloading', 'processing',
                           'ready', 'fetching', 'needs_choice', 'verifying', 'converting')
            THEN 'DOWNLOADING'
        WHEN NEW.stage = 'completed' THEN 'COMPLETED'
        WHEN NEW.stage = 'failed' THEN 'FAILED'
    END;
    IF NEW.status IS NULL THEN
        RAISE EXCEPTION 'there is no stage %', NEW.stage USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

-- A rename is no move: it has no row in the history, and the events that tell of the old name stay.
ALTER TABLE queue_items DISABLE TRIGGER queue_items_moves;
UPDATE queue_items SET stage = 'needs_choice' WHERE stage = 'held';
ALTER TABLE queue_items ENABLE TRIGGER queue_items_moves;

CREATE TRIGGER queue_items_status BEFORE INSERT OR UPDATE OF stage, status ON queue_items
    FOR EACH ROW EXECUTE FUNCTION derive_status();

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
    RETURN NULL;
END $$;

-- Downloads and scans change one by one, so a trigger for each row costs nothing that counts.
CREATE FUNCTION refuse_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM transitions
                    WHERE life = TG_ARGV[0] AND from_state = OLD.state AND to_state = NEW.state) THEN
        RAISE EXCEPTION 'not in the transition table: % %: % -> %',
            TG_ARGV[0], NEW.id, OLD.state, NEW.state USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER tickets_edges BEFORE UPDATE OF state ON tickets
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state)
    EXECUTE FUNCTION refuse_edges('download');
CREATE TRIGGER scans_edges BEFORE UPDATE OF state ON scans
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state)
    EXECUTE FUNCTION refuse_edges('scan');
