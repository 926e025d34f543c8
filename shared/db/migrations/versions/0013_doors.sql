-- Whose turn it is, what an administrator has ended, what files in place were found to be, and why releases were
-- refused.

ALTER TABLE queue_items
    -- The order of what waits is (priority, turn, seq); see shared/db/turns.py. Rows of the release before have
    -- turn 0: they are older than all others.
    ADD COLUMN turn    bigint NOT NULL DEFAULT 0,
    -- The user whose turn it is; empty: nobody's, as of a scan.
    ADD COLUMN turn_of text NOT NULL DEFAULT '',
    -- An administrator has ended it: only an administrator retries it.
    ADD COLUMN barred  boolean NOT NULL DEFAULT false;

UPDATE queue_items q SET turn = n.turn, turn_of = q.requested_by_user_id
  FROM (SELECT id, row_number() OVER (PARTITION BY priority, requested_by_user_id ORDER BY seq) - 1 AS turn
          FROM queue_items
         WHERE stage IN ('queued', 'retry_wait') AND requested_by_user_id IS NOT NULL) n
 WHERE n.id = q.id;

-- `queue_items_to_ticket` stays: a worker of the release before reads in its order.
CREATE INDEX queue_items_in_turn ON queue_items (priority, turn, seq) WHERE stage IN ('queued', 'retry_wait');
CREATE INDEX queue_items_turns_of ON queue_items (turn_of, priority, turn) WHERE stage IN ('queued', 'retry_wait');

-- The turn that was served last.
CREATE TABLE turns (
    priority integer PRIMARY KEY,
    served   bigint NOT NULL DEFAULT 0
);
INSERT INTO turns (priority) VALUES (1), (2), (3);

-- The next turn of a user: after the user's own, and not before what was served last.
CREATE FUNCTION next_turn(who text, urgency integer) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT greatest((SELECT served FROM turns WHERE priority = urgency),
                    (SELECT max(turn) + 1 FROM queue_items
                      WHERE turn_of = who AND priority = urgency AND stage IN ('queued', 'retry_wait')), 0)
$$;

-- The turn of what waits of this album for this user; null without any.
CREATE FUNCTION turn_of_album(who text, urgency integer, album text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT turn FROM queue_items
     WHERE album_id = album AND turn_of = who AND priority = urgency AND stage IN ('queued', 'retry_wait')
     ORDER BY turn LIMIT 1
$$;

-- A repeated request is found by what it asks for.
CREATE INDEX requests_by_content ON requests (user_id, content_id) WHERE user_id IS NOT NULL;

-- What a file in place was found to be, for one length in the catalog, while its size and time are the same.
CREATE TABLE file_verdicts (
    -- SHA-256 of the path below the media root: a path may be longer than an index entry.
    path_key    text NOT NULL,
    -- 0: the catalog has no length.
    expected_ms bigint NOT NULL,
    tolerance_s double precision NOT NULL,
    size_bytes  bigint NOT NULL,
    modified_ns bigint NOT NULL,
    -- Of a whole file.
    facts       jsonb,
    -- Of another one.
    error_type  text,
    message     text,
    checked_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (path_key, expected_ms)
);
CREATE INDEX file_verdicts_checked ON file_verdicts (checked_at);

-- The refusal in a few words, for the last words of an item.
ALTER TABLE bad_sources ADD COLUMN told text;
ALTER TABLE blocklist ADD COLUMN told text;
