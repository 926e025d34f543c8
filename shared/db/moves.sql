-- Every statement that changes an item's stage, in the order of an item's life. `moves.py` has the function of
-- each name.
--
-- Each takes a set of items and returns those that it moved. It is guarded by the stages that it may start from
-- and, where a worker holds the items, by the fences of its claims. The database derives the status from the
-- stage, writes the history rows in the same statement, and refuses an edge that is not in the transition table.
--
-- A statement that sets `due_at` sets `wait_s` too: how far ahead it may lie, by which the reaper finds the waits
-- that a wrong clock has written. A new fence is random, so that it is not given again after lost commits.

-- name: arrive
-- A track has one active item at most: what is active already is not inserted.
-- Of an album, some of which waits for the same user, all of it has one turn; $10: not where each track has its
-- own.
INSERT INTO queue_items (id, track_id, stage, priority, seq, requested_by_user_id, actor, reason, turn_of, turn,
                         album_id, track_name, artist_name, main_artist, album_name, album_artist, disc_number,
                         track_number, duration_ms, isrc)
SELECT t.id, t.track_id, $1, $2, t.seq, $3, $4, $5, $11,
       coalesce(CASE WHEN NOT $10 THEN turn_of_album($11, $2, t.album_id) END,
                (SELECT next_turn($11, $2)) + t.place),
       t.album_id, t.track_name, t.artist_name, t.main_artist, t.album_name, t.album_artist, t.disc_number,
       t.track_number, t.duration_ms, t.isrc
  FROM unnest($6::text[], $7::text[], $8::bigint[], $9::int[], $12::text[], $13::text[], $14::text[],
              $15::text[], $16::text[], $17::text[], $18::int[], $19::int[], $20::bigint[], $21::text[])
       AS t (id, track_id, seq, place, album_id, track_name, artist_name, main_artist, album_name,
             album_artist, disc_number, track_number, duration_ms, isrc)
 ORDER BY t.track_id
ON CONFLICT (track_id) WHERE status IN ('PENDING', 'DOWNLOADING') DO NOTHING
RETURNING id, track_id

-- name: claim_to_ticket
-- A resumed item continues the attempt of an earlier try, whose download may exist already.
UPDATE queue_items q
   SET stage = $1, actor = $2, reason = d.reason, lease_owner = $3,
       lease_until = now() + make_interval(secs => $4), fence = new_fence(),
       attempt = q.attempt + CASE WHEN d.resumed THEN 0 ELSE 1 END,
       torrentino_ticket_id = CASE WHEN d.resumed THEN q.torrentino_ticket_id END,
       ticket_id = d.ticket_id, chosen_file = NULL, converted_pct = NULL,
       started_at = coalesce(q.started_at, extract(epoch FROM now())::bigint), updated_at = now()
  FROM unnest($5::text[], $6::text[], $7::boolean[], $8::text[]) AS d (item_id, ticket_id, resumed, reason)
  JOIN tickets t ON t.id = d.ticket_id
 WHERE q.id = d.item_id AND q.stage = ANY($9)
RETURNING q.id, q.fence, q.ticket_id, q.track_id, q.track_name, q.main_artist, q.artist_name, q.disc_number,
          q.track_number, q.duration_ms, q.album_name, q.album_artist, q.album_id, q.priority, q.turn,
          q.seq, d.resumed, t.kind, t.album_id AS ticket_album_id, t.dest_path, t.failures

-- name: join_ticket
UPDATE queue_items q
   SET stage = $1, actor = $2, reason = $3, attempt = q.attempt + 1, ticket_id = d.ticket_id,
       torrentino_ticket_id = d.torrentino_id, chosen_file = NULL, converted_pct = NULL,
       started_at = coalesce(q.started_at, extract(epoch FROM now())::bigint), updated_at = now()
  FROM unnest($4::text[], $5::text[], $6::text[]) AS d (item_id, ticket_id, torrentino_id)
 WHERE q.id = d.item_id AND q.stage = ANY($7)
RETURNING q.id

-- name: start
UPDATE queue_items q
   SET stage = $1, actor = $2, reason = $3, torrentino_ticket_id = $4, lease_until = NULL, lease_owner = NULL,
       updated_at = now()
  FROM unnest($5::text[], $6::bigint[]) AS c (item_id, fence)
 WHERE q.id = c.item_id AND q.fence = c.fence AND q.stage = ANY($7)
RETURNING q.id, q.priority, q.turn

-- name: follow
-- All items of these downloads that the download has. $6: those that are there already get the new reason.
UPDATE queue_items q
   SET stage = $1, actor = $2, reason = d.reason, due_at = now(), wait_s = 0, updated_at = now()
  FROM unnest($3::text[], $4::text[]) AS d (ticket_id, reason)
 WHERE q.ticket_id = d.ticket_id
   AND (q.stage = ANY($5) OR ($6 AND q.stage = $1 AND q.reason IS DISTINCT FROM d.reason))
RETURNING q.id

-- name: requeue
-- The download leads no further, and no attempt has failed. $9: not the items whose own ticket has found
-- nothing before; they stay as they are. Those that are asked for by track each get a turn.
UPDATE queue_items q
   SET stage = $1, actor = $2, reason = d.reason, detours = q.detours + $5,
       ask_next = coalesce($6, q.ask_next), due_at = now() + make_interval(secs => $7), wait_s = $7,
       turn = CASE WHEN $6 = 'track' THEN next_turn(q.turn_of, q.priority) + p.place ELSE q.turn END,
       updated_at = now()
  FROM unnest($3::text[], $4::text[]) AS d (ticket_id, reason)
  JOIN (SELECT o.id, o.ticket_id, row_number() OVER (PARTITION BY o.ticket_id ORDER BY o.seq) - 1 AS place
          FROM queue_items o WHERE o.ticket_id = ANY($3)) p USING (ticket_id)
 WHERE q.id = p.id AND q.ticket_id = d.ticket_id AND q.stage = ANY($8)
   AND NOT ($9 AND q.ask_next IS NOT DISTINCT FROM 'album'
               AND q.error_type IS NOT DISTINCT FROM 'not_found')
RETURNING q.id

-- name: claim_to_collect
UPDATE queue_items q
   SET stage = $1, actor = $2, reason = 'collecting the file', fence = new_fence(),
       lease_owner = $3, lease_until = now() + make_interval(secs => $4), converted_pct = NULL,
       updated_at = now()
 WHERE q.id = ANY($5) AND q.stage = ANY($6)
RETURNING q.id

-- name: advance
-- The same claim continues with the next stage.
UPDATE queue_items q
   SET stage = $1, actor = $2, reason = $3, updated_at = now()
  FROM unnest($4::text[], $5::bigint[]) AS c (item_id, fence)
 WHERE q.id = c.item_id AND q.fence = c.fence AND q.stage = ANY($6)
RETURNING q.id

-- name: ask_for_choice
UPDATE queue_items q
   SET stage = $1, actor = $2, reason = d.reason, error_evidence = d.evidence, lease_until = NULL,
       lease_owner = NULL, updated_at = now()
  FROM unnest($3::text[], $4::bigint[], $5::text[], $6::jsonb[]) AS d (item_id, fence, reason, evidence)
 WHERE q.id = d.item_id AND q.fence = d.fence AND q.stage = ANY($7)
RETURNING q.id

-- name: choose
UPDATE queue_items q
   SET stage = $1, actor = $2, reason = d.reason, chosen_file = d.file, error_evidence = NULL,
       due_at = now(), wait_s = 0, updated_at = now()
  FROM unnest($3::text[], $4::text[], $5::text[]) AS d (item_id, file, reason)
 WHERE q.id = d.item_id AND q.stage = ANY($6)
RETURNING q.id

-- name: release
-- An administrator has released a refused file for it, which one download brought: that one is its download again.
UPDATE queue_items q
   SET stage = $1, actor = $2, reason = d.reason, released_file = d.file_id, ticket_id = d.ticket_id,
       due_at = now(), wait_s = 0, chosen_file = NULL, converted_pct = NULL, error_type = NULL, error_message = NULL, error_evidence = NULL,
       completed_at = NULL, barred = false, fence = new_fence(), hand_backs = 0,
       started_at = coalesce(q.started_at, extract(epoch FROM now())::bigint), updated_at = now()
  FROM unnest($3::text[], $4::text[], $5::text[], $6::text[]) AS d (item_id, file_id, ticket_id, reason)
 WHERE q.id = d.item_id AND q.stage = ANY($7)
RETURNING q.id

-- name: hand_back
-- Only out of a leased stage: a worker whose last write was committed without its knowledge must not undo it.
-- $9: 1 where it counts, because what the item needs works. $10: where a released file is still to be collected.
UPDATE queue_items q
   SET stage = $1, actor = $2, reason = $3, ask_next = coalesce($4, q.ask_next), lease_until = NULL,
       lease_owner = NULL, due_at = now() + make_interval(secs => $5), wait_s = $5, hand_backs = q.hand_backs + $9,
       released_file = CASE WHEN $1 = $10 THEN q.released_file END,
       turn = CASE WHEN $4 = 'track' THEN next_turn(q.turn_of, q.priority) + c.place - 1 ELSE q.turn END,
       updated_at = now()
  FROM unnest($6::text[], $7::bigint[]) WITH ORDINALITY AS c (item_id, fence, place)
 WHERE q.id = c.item_id AND q.fence = c.fence AND q.stage = ANY($8)
RETURNING q.id

-- name: take_back
-- The leases have run out. The fence is new, so that a worker that went silent can change nothing later.
UPDATE queue_items q
   SET stage = $1, actor = $2, reason = 'its worker went silent: ' || coalesce(q.lease_owner, 'unknown'),
       lease_until = NULL, lease_owner = NULL, due_at = now(), wait_s = 0, fence = new_fence(),
       updated_at = now()
 WHERE q.id = ANY(ARRAY(
       SELECT o.id FROM queue_items o
        WHERE o.stage = ANY($3) AND o.lease_until < now()
        ORDER BY o.lease_until
        LIMIT $4
          FOR NO KEY UPDATE SKIP LOCKED))
   AND q.stage = ANY($3)
RETURNING q.id

-- name: try_next_release
UPDATE queue_items q
   SET stage = $1, actor = $2, reason = $3, grabs = q.grabs + 1, due_at = now(), wait_s = 0, chosen_file = NULL,
       converted_pct = NULL, lease_until = NULL, lease_owner = NULL, fence = new_fence(), hand_backs = 0,
       released_file = NULL, updated_at = now()
 WHERE q.id = ANY($4) AND q.stage = ANY($5) AND q.grabs + 1 < $6
RETURNING q.id

-- name: complete
UPDATE queue_items q
   SET stage = $1, actor = $2, reason = $3, completed_at = extract(epoch FROM now())::bigint,
       bytes_downloaded = d.size_bytes,
       processing_duration_ms = (extract(epoch FROM now()) * 1000)::bigint - q.started_at * 1000,
       error_type = NULL, error_message = NULL, error_evidence = NULL, lease_until = NULL,
       lease_owner = NULL, hand_backs = 0, released_file = NULL, updated_at = now()
  FROM unnest($4::text[], $5::bigint[], $6::bigint[]) AS d (item_id, fence, size_bytes)
 WHERE q.id = d.item_id AND (d.fence IS NULL OR q.fence = d.fence) AND q.stage = ANY($7)
RETURNING q.id, q.track_id, q.album_id

-- name: lock_to_fail
SELECT q.id, q.retry_count
  FROM queue_items q
  JOIN unnest($1::text[], $2::bigint[]) AS c (item_id, fence) ON c.item_id = q.id
 WHERE q.stage = ANY($3) AND (c.fence IS NULL OR q.fence = c.fence)
 ORDER BY q.id
   FOR NO KEY UPDATE OF q

-- name: fail
-- To the next attempt, or to the end. The download stays linked until it is closed, so that no second one is
-- made beside it. A ticket of the other kind serves the next attempt. What waits again has a new turn, each item
-- of a ticket its own, as they may be asked for by track. $11: it is an administrator's decision.
UPDATE queue_items q
   SET stage = d.stage, actor = $1, reason = d.message, error_type = $3, error_message = d.message,
       error_evidence = $4, barred = $11 AND d.stage = $5,
       turn = CASE WHEN d.stage = $5 THEN q.turn
                   WHEN (SELECT t.way FROM tickets t WHERE t.id = q.ticket_id) = 'direct'
                   THEN next_turn(q.turn_of, q.priority)
                   ELSE next_turn(q.turn_of, q.priority) + d.place - 1 END,
       retry_count = d.retry_count, due_at = now() + make_interval(secs => d.delay_s),
       wait_s = d.delay_s,
       completed_at = CASE WHEN d.stage = $5 THEN extract(epoch FROM now())::bigint END,
       detours = 0, grabs = 0,
       ask_next = (SELECT CASE WHEN t.way = 'direct' THEN NULL
                               WHEN t.kind = 'track' AND q.album_id IS NOT NULL THEN 'album'
                               WHEN t.id IS NOT NULL THEN 'track'
                               ELSE q.ask_next END
                     FROM (SELECT q.ticket_id AS id) i LEFT JOIN tickets t USING (id)),
       chosen_file = NULL, converted_pct = NULL, lease_until = NULL, lease_owner = NULL,
       fence = new_fence(), hand_backs = 0, released_file = NULL, updated_at = now()
  FROM unnest($6::text[], $7::text[], $8::int[], $9::float8[], $2::text[]) WITH ORDINALITY
       AS d (item_id, stage, retry_count, delay_s, message, place)
 WHERE q.id = d.item_id AND q.stage = ANY($10)
RETURNING q.id

-- name: cancel
-- $6: also those for which a requester still waits, by an administrator.
UPDATE queue_items q
   SET stage = $1, actor = $2, reason = $3, error_type = $4, error_message = $3, error_evidence = NULL, barred = $6,
       completed_at = extract(epoch FROM now())::bigint, lease_until = NULL, lease_owner = NULL,
       fence = new_fence(), released_file = NULL, updated_at = now()
 WHERE q.id = ANY($5) AND q.stage = ANY($7)
   AND ($6 OR NOT EXISTS (SELECT 1 FROM item_requesters r
                           WHERE r.item_id = q.id AND r.withdrawn_at IS NULL))
RETURNING q.id, q.ticket_id

-- name: retry
-- A download that is still being withdrawn stays linked: the ticketer waits until it is closed.
UPDATE queue_items q
   SET stage = $1, actor = $2, reason = $3, retry_count = 0, detours = 0, grabs = 0, due_at = now(),
       wait_s = 0, error_type = NULL, error_message = NULL, error_evidence = NULL, started_at = NULL,
       completed_at = NULL, bytes_downloaded = NULL, processing_duration_ms = NULL,
       torrentino_ticket_id = NULL, ask_next = NULL, chosen_file = NULL, converted_pct = NULL, barred = false,
       turn = next_turn(q.turn_of, q.priority),
       ticket_id = (SELECT t.id FROM tickets t WHERE t.id = q.ticket_id AND t.state <> $4),
       fence = new_fence(), hand_backs = 0, updated_at = now()
 WHERE q.id = ANY($5) AND q.stage = ANY($6)
RETURNING q.id
