-- Torrents that gave broken audio for a track, so that they are not waited for again.
CREATE TABLE bad_sources (
    track_id   text NOT NULL,
    info_hash  text NOT NULL,
    reason     text NOT NULL,
    item_id    text NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    -- Out of the torrent client: there it would be downloaded already for the next ticket.
    removed_at timestamptz,
    PRIMARY KEY (track_id, info_hash)
);
CREATE INDEX bad_sources_to_remove ON bad_sources (info_hash) WHERE removed_at IS NULL;

-- Tickets in a row that led nowhere without being anybody's fault.
ALTER TABLE queue_items ADD COLUMN detours integer NOT NULL DEFAULT 0;
