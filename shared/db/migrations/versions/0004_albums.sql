-- One ticket for many tracks, files out of whole torrents, and conversion.

ALTER TABLE tickets
    ADD COLUMN kind            text NOT NULL DEFAULT 'track' CHECK (kind IN ('track', 'album')),
    ADD COLUMN album_id        text,
    -- The chosen candidate, and which of its files Torrentino takes for which track.
    ADD COLUMN torrent_title   text,
    ADD COLUMN file_mappings   jsonb,
    -- Where the files lie, as Torrentino sees it: `dest_path`, or the torrent's own folder or file.
    ADD COLUMN delivery        text NOT NULL DEFAULT 'incoming'
                               CHECK (delivery IN ('incoming', 'torrent')),
    ADD COLUMN torrent_path    text,
    -- What Torrentino's pipeline was told to convert and place: new name -> path in the torrent.
    ADD COLUMN processed_files jsonb,
    ADD COLUMN process_asked_at timestamptz,
    -- When the ticket last changed before that, as Torrentino told it.
    ADD COLUMN process_after   text,
    -- Cleaned up at Torrentino, or left there on purpose.
    ADD COLUMN tidied_at       timestamptz;
CREATE INDEX tickets_of_album ON tickets (album_id) WHERE state = 'open' AND kind = 'album';
CREATE INDEX tickets_of_torrent ON tickets (info_hash) WHERE info_hash IS NOT NULL;
CREATE INDEX tickets_to_tidy ON tickets (closed_at) WHERE state = 'closed' AND tidied_at IS NULL;
-- Those that ended before there was a policy stay as they are.
UPDATE tickets SET tidied_at = now() WHERE state = 'closed';

ALTER TABLE queue_items
    -- The kind of ticket that may serve it when the last one did not.
    ADD COLUMN ask_next      text CHECK (ask_next IN ('track', 'album')),
    -- The file of the torrent that a person said it is.
    ADD COLUMN chosen_file   text,
    ADD COLUMN converted_pct double precision,
    DROP CONSTRAINT leased_has_a_lease,
    ADD CONSTRAINT leased_has_a_lease CHECK (
        (stage IN ('ticketing', 'fetching', 'verifying', 'converting')) = (lease_until IS NOT NULL));
CREATE INDEX queue_items_of_album ON queue_items (album_id) WHERE album_id IS NOT NULL;

-- The tracks of an album as the catalog had them when it was last asked for, wanted or not: a file
-- that is another track's is not taken for a wanted one.
CREATE TABLE albums (
    album_id text PRIMARY KEY,
    name     text NOT NULL,
    artist   text,
    tracks   jsonb NOT NULL,
    seen_at  timestamptz NOT NULL DEFAULT now()
);

-- A torrent that lacks a track is no bad torrent: nothing of it is removed.
ALTER TABLE bad_sources ADD COLUMN lacks boolean NOT NULL DEFAULT false;
