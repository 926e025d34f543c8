-- Every statement that changes the state of a download (`tickets.state`), in the order of its life.
--
-- Guarded by the states that it may start from; no row changed means that another worker was first.

-- name: intend
INSERT INTO tickets (id, dest_path, priority, kind, album_id, way)
SELECT t.id, t.dest_path, t.priority, t.kind, t.album_id, $1
  FROM unnest($2::text[], $3::text[], $4::int[], $5::text[], $6::text[])
       AS t (id, dest_path, priority, kind, album_id)

-- name: open_ticket
UPDATE tickets
   SET state = $1, torrentino_id = $3, priority = $4, progressed_at = now(), looked_at = now(),
       next_poll_at = now(), failures = 0
 WHERE id = $2 AND state = ANY($5)

-- name: open_torrent
-- What the torrent client adds may have another hash than the indexer said.
UPDATE tickets
   SET state = $1, info_hash = $3, ours = coalesce($4, ours), links = NULL, submitted_at = now(),
       progressed_at = now(), looked_at = now(), next_poll_at = now(), failures = 0
 WHERE id = $2 AND state = ANY($5)

-- name: close_unstarted
-- The intent has certainly led to no download, and no worker holds it. What was begun may have left a torrent:
-- the poller finds that out.
UPDATE tickets t
   SET state = $1, closed_at = now(), remote_state = $3,
       collected_at = CASE WHEN t.way = 'direct' THEN now() END,
       tidied_at = CASE WHEN t.way = 'direct' THEN now() END
 WHERE t.id = $2 AND t.state = $4 AND t.adding_at IS NULL
   AND NOT EXISTS (SELECT 1 FROM queue_items q WHERE q.ticket_id = t.id AND q.stage = ANY($5))

-- name: close_in_the_way
-- Its files are known to lie in the client's folder, without a torrent.
UPDATE tickets
   SET state = $1, closed_at = now(), remote_state = 'in_the_way', delivery = 'torrent', torrent_path = $3,
       links = NULL, hashes_before = NULL, ours = false, submitted_at = now()
 WHERE id = $2 AND state = $4

-- name: close_ticket
UPDATE tickets
   SET state = $1, closed_at = now(), remote_state = $3, remote_reason = $4, files_placed = $5,
       final_size_bytes = $6, speed_bps = NULL, eta_s = NULL,
       delivery = CASE WHEN $7::text IS NULL THEN 'incoming' ELSE 'torrent' END, torrent_path = $7,
       size_bytes = coalesce($8, size_bytes),
       progress_pct = CASE WHEN $3 = 'completed' THEN 100 ELSE progress_pct END
 WHERE id = $2 AND state = ANY($9)

-- name: close_torrent
-- Its files stay where they are, so there is no incoming folder to collect or to clean up.
UPDATE tickets
   SET state = $1, closed_at = now(), remote_state = $3, remote_reason = $4, delivery = 'torrent',
       torrent_path = $5, speed_bps = NULL, eta_s = NULL, links = NULL, hashes_before = NULL,
       progress_pct = CASE WHEN $3 = 'completed' THEN 100 ELSE progress_pct END,
       collected_at = now(), tidied_at = now()
 WHERE id = $2 AND state = ANY($6)

-- name: withdraw
UPDATE tickets SET state = $1, withdrawn_at = NULL, next_poll_at = now(), failures = 0
 WHERE id = ANY($2) AND state = $3

-- name: withdraw_unwanted
-- No active item waits for them any more. $2 NULL: of all downloads.
UPDATE tickets t SET state = $1, withdrawn_at = NULL, next_poll_at = now()
 WHERE ($2::text[] IS NULL OR t.id = ANY($2)) AND t.state = ANY($3) AND ($4::text IS NULL OR t.way = $4)
   AND NOT EXISTS (SELECT 1 FROM queue_items q WHERE q.ticket_id = t.id AND q.status = ANY($5))

-- name: reopen
-- A ticket that came back to life. Its folder, if it was removed already, may be there again.
UPDATE tickets
   SET state = $1, torrentino_id = $3, withdrawn_at = NULL, closed_at = NULL, collected_at = NULL,
       tidied_at = NULL, ticket_deleted_at = NULL, next_poll_at = now()
 WHERE dest_path = $2 AND state = $4 AND coalesce(torrentino_id, $3) = $3

-- name: find_lost
-- Torrentino has a ticket of this installation whose row was lost, as with an asynchronous replica.
INSERT INTO tickets (id, dest_path, torrentino_id, priority, way)
VALUES ($1, $2, $3, 0, 'tickets')
ON CONFLICT DO NOTHING

-- name: withdraw_lost
UPDATE tickets SET state = $1, withdrawn_at = NULL, next_poll_at = now()
 WHERE id = $2 AND torrentino_id = $3 AND state = $4

-- name: find_lost_torrents
-- The same for torrents in our folders at the torrent client: ours, and done with. One that is whole may
-- have brought its files long ago: rows are pruned, and it still seeds.
INSERT INTO tickets (id, dest_path, priority, way, state, info_hash, ours, brought, remote_state,
                     closed_at, collected_at, tidied_at)
SELECT l.id, 'direct:' || l.id, 0, 'direct', $4, l.info_hash, true, l.whole, 'lost', now(), now(), now()
  FROM unnest($1::text[], $2::text[], $3::boolean[]) AS l (id, info_hash, whole)
ON CONFLICT DO NOTHING
