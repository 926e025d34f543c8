-- Refused downloads are kept for a while, and an administrator may release one; blocks can be lifted.

CREATE TABLE refused_files (
    -- The file is .incoming/kept/{id} below the media root.
    id            text PRIMARY KEY,
    track_id      text NOT NULL,
    item_id       text NOT NULL,
    -- The download that brought it; it stays as long as the row.
    ticket_id     text NOT NULL REFERENCES tickets (id),
    info_hash     text,
    torrent_title text,
    -- Its path in the torrent.
    file          text NOT NULL,
    -- Why it was refused: the rule of verification, in words, and what was measured.
    rule          text NOT NULL,
    reason        text NOT NULL,
    evidence      jsonb NOT NULL,
    size_bytes    bigint NOT NULL,
    kept_at       timestamptz NOT NULL DEFAULT now(),
    -- Who released it last.
    released_by   text,
    released_at   timestamptz
);
CREATE INDEX refused_files_kept ON refused_files (kept_at);
CREATE INDEX refused_files_of_ticket ON refused_files (ticket_id);
CREATE INDEX refused_files_of_track ON refused_files (track_id);

-- The refused file that an administrator has released for the item, while it is collected from there.
ALTER TABLE queue_items ADD COLUMN released_file text;
CREATE INDEX queue_items_released ON queue_items (released_file) WHERE released_file IS NOT NULL;

-- Who released the file, although it does not pass the verification: only its SHA-256 says that it is whole.
ALTER TABLE media_files ADD COLUMN released_by text;

-- What was measured when the source was blocked.
ALTER TABLE bad_sources ADD COLUMN evidence jsonb;
ALTER TABLE blocklist ADD COLUMN evidence jsonb;

-- An administrator releases a refused file for an item that waits, or that has failed.
INSERT INTO transitions (life, from_state, to_state) VALUES
    ('item', 'failed', 'ready'),
    ('item', 'queued', 'ready'),
    ('item', 'retry_wait', 'ready');
