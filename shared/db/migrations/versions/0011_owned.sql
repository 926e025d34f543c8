-- What at Torrentino is this installation's, and what was there before.

-- Which installation this is: a name in paths at Torrentino, in the mark of the media root and in
-- NATS. A restored backup is the same installation.
CREATE TABLE identity (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    id      text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO identity (id) VALUES (replace(left(gen_random_uuid()::text, 13), '-', ''));

-- When a torrent was first seen at Torrentino's client. One that was seen before a ticket was asked
-- for is not that ticket's.
CREATE TABLE torrents_seen (
    info_hash     text PRIMARY KEY,
    first_seen_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE tickets
    -- When the client's torrents were listed, before the ticket was asked for. Null: they were not.
    ADD COLUMN listed_at timestamptz,
    -- Failures in a row that were this download's alone: asking for it, or reading it.
    ADD COLUMN failures  integer NOT NULL DEFAULT 0;

-- The file is whole, and is another recording than the catalog's: nothing is wrong with the torrent.
ALTER TABLE bad_sources ADD COLUMN whole boolean NOT NULL DEFAULT false;
