-- How often an item was handed back, the folders that cannot be removed yet, and the places where files were seen.

-- How often it was handed back although its places work; 0 after the end of an attempt.
ALTER TABLE queue_items ADD COLUMN hand_backs integer NOT NULL DEFAULT 0;

-- Among those of one priority, what was not handed back comes first.
CREATE INDEX queue_items_to_collect ON queue_items (priority, (hand_backs > 0), seq) WHERE stage = 'ready';

-- When the ticket's folder is removed, at the earliest, and how often that has failed.
ALTER TABLE tickets ADD COLUMN clean_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE tickets ADD COLUMN clean_tries integer NOT NULL DEFAULT 0;

-- Folders and servers in which a ticket's files were seen: what is mounted there is the right one.
CREATE TABLE places (
    -- The delivery: incoming, torrent.
    name     text NOT NULL,
    -- What tells the folder from another one at the same path.
    identity text NOT NULL,
    seen_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, identity)
);
