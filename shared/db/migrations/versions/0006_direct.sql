-- Downloads that we search, choose and follow ourselves, beside Torrentino's tickets. Both are rows
-- of `tickets`: what an item waits for.

ALTER TABLE tickets
    ADD COLUMN way        text NOT NULL DEFAULT 'tickets' CHECK (way IN ('tickets', 'direct')),
    -- What follows is for direct downloads. `torrent_title`, `size_bytes` and `info_hash` are the
    -- chosen release's from the intent on, then what the torrent client tells.
    ADD COLUMN release_key text,
    -- Secrets, until it is added: they may hold an indexer's key.
    ADD COLUMN links      jsonb,
    -- The call that adds the torrent may have been made since.
    ADD COLUMN adding_at  timestamptz,
    ADD COLUMN adds       integer NOT NULL DEFAULT 0,
    -- The hashes that the client had before it.
    ADD COLUMN hashes_before jsonb,
    -- Whether it was this download that put the torrent there.
    ADD COLUMN ours       boolean,
    -- Whether a file has come out of it.
    ADD COLUMN brought    boolean NOT NULL DEFAULT false,
    -- When it was first seen whole, and last seen at all.
    ADD COLUMN whole_at   timestamptz,
    ADD COLUMN looked_at  timestamptz,
    -- As the client tells it, empty before the metadata is there.
    ADD COLUMN size_bytes_seen bigint,
    ADD COLUMN seeders    bigint,
    -- Since when the client does not have the torrent.
    ADD COLUMN missing_at timestamptz,
    -- Out of the client, or there on purpose.
    ADD COLUMN removed_at timestamptz,
    -- Of a ticket: its row at Torrentino is gone.
    ADD COLUMN ticket_deleted_at timestamptz;
-- One is added at a time: of two at once librqbit takes one for the other, and of two that do not tell
-- their hashes it could not be known which is which.
CREATE UNIQUE INDEX tickets_one_being_added ON tickets ((true))
    WHERE way = 'direct' AND state = 'intent' AND adding_at IS NOT NULL;
CREATE INDEX tickets_to_remove ON tickets (info_hash)
    WHERE way = 'direct' AND ours AND removed_at IS NULL;
CREATE INDEX tickets_to_delete ON tickets (closed_at)
    WHERE state = 'closed' AND way = 'tickets' AND torrentino_id IS NOT NULL
      AND ticket_deleted_at IS NULL;

ALTER TABLE queue_items
    -- Downloads begun for this request that have not brought it.
    ADD COLUMN grabs integer NOT NULL DEFAULT 0;

-- What a release is measured by, beside the tracklist.
ALTER TABLE albums ADD COLUMN year integer, ADD COLUMN kind text;

-- What was searched for, by the folded query, and what that gave.
CREATE TABLE searches (
    query       text PRIMARY KEY,
    answered_at timestamptz,
    -- Somebody is asking, at the latest until then.
    lease_until timestamptz,
    -- The indexers that could not be asked.
    failed      jsonb NOT NULL DEFAULT '[]'
);
CREATE TABLE releases (
    query        text NOT NULL REFERENCES searches (query) ON DELETE CASCADE,
    place        integer NOT NULL,
    title        text NOT NULL,
    size_bytes   bigint NOT NULL,
    seeders      integer NOT NULL,
    info_hash    text NOT NULL,
    audio_files  integer,
    -- Secrets: they may hold the indexer's key.
    magnet_uri   text,
    torrent_url  text,
    PRIMARY KEY (query, place)
);
-- The budget: when indexers were asked.
CREATE TABLE searches_made (at timestamptz NOT NULL DEFAULT now());
CREATE INDEX searches_made_at ON searches_made (at);

-- What no search has found lately, by album or track, and when it is searched for again.
CREATE TABLE not_found (
    wanted  text PRIMARY KEY,
    times   integer NOT NULL,
    told    text NOT NULL,
    next_at timestamptz NOT NULL,
    at      timestamptz NOT NULL DEFAULT now()
);

-- Releases that did not bring a track: by hash, or by title and size where that is all they tell.
CREATE TABLE blocklist (
    track_id    text NOT NULL,
    release_key text NOT NULL,
    info_hash   text,
    why         text NOT NULL CHECK (why IN ('wrong', 'lacks', 'stalled', 'refused')),
    reason      text NOT NULL,
    item_id     text NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (track_id, release_key)
);
CREATE INDEX blocklist_by_hash ON blocklist (info_hash) WHERE info_hash IS NOT NULL;

-- Who searches and follows for what is new, as a ticketer last said it.
CREATE TABLE acquisition (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    way     text NOT NULL,
    reason  text NOT NULL,
    said_at timestamptz NOT NULL DEFAULT now()
);
