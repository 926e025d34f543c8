-- The ledger also has files that others placed, at the path that they have; and the bridge keeps here
-- what the catalog server knows of each file.

ALTER TABLE media_files
    ADD COLUMN album_id text,
    -- Another program placed it; audio_uri is then not the path of our rule.
    ADD COLUMN adopted boolean NOT NULL DEFAULT false,
    -- When the catalog was last seen to name a file for the track; null: the bridge has to look.
    ADD COLUMN published_at timestamptz,
    -- When the catalog server last said that it plays the track; null: not since it was published.
    ADD COLUMN playable_at timestamptz,
    -- Why it is not published, or not playable.
    ADD COLUMN not_playable text;

UPDATE media_files f SET album_id = q.album_id FROM queue_items q WHERE q.id = f.item_id;

CREATE INDEX media_files_album ON media_files (album_id);
CREATE INDEX media_files_unpublished ON media_files (track_id) WHERE published_at IS NULL;
-- Asked for twice a second: what the catalog server was never asked about.
CREATE INDEX media_files_to_ask ON media_files (track_id)
    WHERE published_at IS NOT NULL AND playable_at IS NULL AND not_playable IS NULL;

-- The catalog.db that the bridge used last, with the -shm of its server: one of them is never replaced
-- without the other.
CREATE TABLE catalog_used (
    singleton     boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    database_file text NOT NULL,
    shm_file      text,
    used_at       timestamptz NOT NULL DEFAULT now()
);

-- What the catalog says of a file and an operator has to correct.
CREATE TABLE presence_problems (
    track_id    text PRIMARY KEY,
    audio_uri   text NOT NULL,
    -- outside: it leads out of the media root; broken: it is not the whole audio of the track;
    -- second: the track has another file in the ledger.
    kind        text NOT NULL CHECK (kind IN ('outside', 'broken', 'second')),
    detail      text NOT NULL,
    -- Of the file that was checked, so that it is not decoded again while it is the same.
    size_bytes  bigint,
    modified_ns bigint,
    seen_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX presence_problems_seen ON presence_problems (seen_at);

-- Of the tracks of a scan: how many files the ledger lacks, how many the scan has recorded, how many
-- are known to be broken, and how many paths of the catalog may not be used.
ALTER TABLE scans
    ADD COLUMN to_adopt bigint NOT NULL DEFAULT 0,
    ADD COLUMN adopted bigint NOT NULL DEFAULT 0,
    ADD COLUMN broken bigint NOT NULL DEFAULT 0,
    ADD COLUMN refused bigint NOT NULL DEFAULT 0;
