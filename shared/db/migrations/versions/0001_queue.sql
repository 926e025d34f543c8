-- The queue, its tickets and requesters, the history that is also the outbox, and the ledger.
-- Columns of queue_items that come from the original plan keep its names and its Unix seconds;
-- what we decide by (due times, leases) is timestamptz and set by this database's clock only.

CREATE SEQUENCE queue_seq;
CREATE SEQUENCE fence_seq;

CREATE TABLE tickets (
    id               text PRIMARY KEY,
    dest_path        text NOT NULL UNIQUE,
    torrentino_id    text UNIQUE,
    state            text NOT NULL DEFAULT 'intent'
                     CHECK (state IN ('intent', 'open', 'withdrawing', 'closed')),
    priority         integer NOT NULL,
    remote_state     text,
    remote_reason    text,
    info_hash        text,
    candidates       jsonb,
    progress_pct     double precision,
    speed_bps        bigint,
    eta_s            bigint,
    size_bytes       bigint,
    files_placed     integer,
    final_size_bytes bigint,
    intended_at      timestamptz NOT NULL DEFAULT now(),
    submitted_at     timestamptz,
    progressed_at    timestamptz NOT NULL DEFAULT now(),
    next_poll_at     timestamptz NOT NULL DEFAULT now(),
    withdrawn_at     timestamptz,
    closed_at        timestamptz,
    collected_at     timestamptz
);
CREATE INDEX tickets_to_poll ON tickets (next_poll_at) WHERE state IN ('open', 'withdrawing');
CREATE INDEX tickets_live ON tickets (id) WHERE state <> 'closed';
CREATE INDEX tickets_to_collect ON tickets (closed_at) WHERE state = 'closed' AND collected_at IS NULL;

CREATE TABLE queue_items (
    id                     text PRIMARY KEY,
    track_id               text NOT NULL,
    status                 text NOT NULL
                           CHECK (status IN ('PENDING', 'DOWNLOADING', 'COMPLETED', 'FAILED')),
    priority               integer NOT NULL CHECK (priority BETWEEN 1 AND 3),
    created_at             bigint NOT NULL DEFAULT extract(epoch FROM now())::bigint,
    started_at             bigint,
    completed_at           bigint,
    retry_count            integer NOT NULL DEFAULT 0,
    error_type             text,
    error_message          text,
    torrentino_ticket_id   text,
    requested_by_user_id   text,
    bytes_downloaded       bigint,
    processing_duration_ms bigint,

    seq                    bigint NOT NULL DEFAULT nextval('queue_seq') UNIQUE,
    stage                  text NOT NULL,
    attempt                integer NOT NULL DEFAULT 0,
    due_at                 timestamptz NOT NULL DEFAULT now(),
    fence                  bigint NOT NULL DEFAULT 0,
    lease_until            timestamptz,
    lease_owner            text,
    ticket_id              text REFERENCES tickets (id),
    actor                  text NOT NULL,
    reason                 text,
    error_evidence         jsonb,
    album_id               text,
    track_name             text NOT NULL,
    artist_name            text,
    main_artist            text,
    album_name             text,
    album_artist           text,
    disc_number            integer,
    track_number           integer,
    duration_ms            bigint,
    isrc                   text,
    updated_at             timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT active_has_an_end CHECK (
        (status IN ('COMPLETED', 'FAILED')) = (completed_at IS NOT NULL)),
    CONSTRAINT downloading_has_a_ticket CHECK (
        status <> 'DOWNLOADING' OR ticket_id IS NOT NULL),
    CONSTRAINT leased_has_a_lease CHECK (
        (stage IN ('ticketing', 'fetching', 'verifying')) = (lease_until IS NOT NULL))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);

-- Names of the plan.
CREATE INDEX idx_queue_items_status ON queue_items (status);
CREATE INDEX idx_queue_items_track ON queue_items (track_id);
-- One active item for a track: work is deduplicated by the database, not by a check before it.
CREATE UNIQUE INDEX queue_items_one_active ON queue_items (track_id)
    WHERE status IN ('PENDING', 'DOWNLOADING');
CREATE INDEX queue_items_to_ticket ON queue_items (priority, seq)
    WHERE stage IN ('queued', 'retry_wait');
CREATE INDEX queue_items_to_fetch ON queue_items (priority, seq) WHERE stage = 'ready';
CREATE INDEX queue_items_leased ON queue_items (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX queue_items_by_ticket ON queue_items (ticket_id) WHERE ticket_id IS NOT NULL;
CREATE INDEX queue_items_finished ON queue_items (completed_at) WHERE completed_at IS NOT NULL;

CREATE TABLE requests (
    id           text PRIMARY KEY,
    user_id      text,
    kind         text NOT NULL CHECK (kind IN ('track', 'album', 'scan')),
    content_id   text NOT NULL,
    content_name text,
    artist_name  text,
    priority     integer NOT NULL,
    source       text NOT NULL,
    charged      boolean NOT NULL,
    already_available integer NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now(),
    settled_at   timestamptz
);
CREATE INDEX requests_charged ON requests (user_id, created_at) WHERE charged;
CREATE INDEX requests_open_albums ON requests (id) WHERE kind = 'album' AND settled_at IS NULL;

-- Who asked for an item. Work is deduplicated, requesters are not.
CREATE TABLE item_requesters (
    item_id      text NOT NULL REFERENCES queue_items (id) ON DELETE CASCADE,
    request_id   text NOT NULL REFERENCES requests (id) ON DELETE CASCADE,
    user_id      text,
    requested_at timestamptz NOT NULL DEFAULT now(),
    withdrawn_at timestamptz,
    PRIMARY KEY (item_id, request_id)
);
CREATE INDEX item_requesters_by_user ON item_requesters (user_id, item_id)
    WHERE withdrawn_at IS NULL;
CREATE INDEX item_requesters_by_request ON item_requesters (request_id);

-- History and outbox in one: a row per transition, written with it; `published_at` is empty until
-- the row has been handed to JetStream.
CREATE TABLE events (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           uuid NOT NULL DEFAULT gen_random_uuid(),
    kind         text NOT NULL,
    item_id      text REFERENCES queue_items (id) ON DELETE CASCADE,
    request_id   text REFERENCES requests (id) ON DELETE CASCADE,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor        text NOT NULL,
    from_stage   text,
    stage        text,
    status       text,
    attempt      integer,
    retry_count  integer,
    reason       text,
    error_type   text,
    data         jsonb NOT NULL DEFAULT '{}',
    published_at timestamptz
);
CREATE INDEX events_of_item ON events (item_id, seq);
CREATE INDEX events_of_request ON events (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX events_outbox ON events (seq) WHERE published_at IS NULL;

CREATE TABLE media_files (
    track_id     text PRIMARY KEY,
    audio_uri    text NOT NULL,
    ext          text NOT NULL,
    size_bytes   bigint NOT NULL,
    sha256       text NOT NULL,
    duration_ms  bigint NOT NULL,
    codec        text NOT NULL,
    bitrate_kbps integer NOT NULL,
    verified_at  timestamptz NOT NULL DEFAULT now(),
    item_id      text
);

CREATE TABLE scans (
    id          text PRIMARY KEY,
    queue       boolean NOT NULL,
    scope       jsonb NOT NULL,
    max_items   integer NOT NULL,
    requested_by text,
    state       text NOT NULL DEFAULT 'waiting'
                CHECK (state IN ('waiting', 'running', 'done', 'refused')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    started_at  timestamptz,
    finished_at timestamptz,
    lease_until timestamptz,
    fence       bigint NOT NULL DEFAULT 0,
    after_rowid bigint NOT NULL DEFAULT 0,
    total       bigint,
    scanned     bigint NOT NULL DEFAULT 0,
    present     bigint NOT NULL DEFAULT 0,
    active      bigint NOT NULL DEFAULT 0,
    missing     bigint NOT NULL DEFAULT 0,
    unrecorded  bigint NOT NULL DEFAULT 0,
    queued      bigint NOT NULL DEFAULT 0,
    sample      jsonb NOT NULL DEFAULT '[]',
    problem     text
);
CREATE UNIQUE INDEX scans_one_at_a_time ON scans ((true)) WHERE state IN ('waiting', 'running');

-- What each process last said of the health of what it depends on.
CREATE TABLE conditions (
    worker     text NOT NULL,
    dependency text NOT NULL,
    ok         boolean NOT NULL,
    detail     text NOT NULL,
    since      timestamptz NOT NULL,
    said_at    timestamptz NOT NULL,
    PRIMARY KEY (worker, dependency)
);

-- What tells an unmounted media root from an empty one.
CREATE TABLE installation (
    one           boolean PRIMARY KEY DEFAULT true CHECK (one),
    media_root_id text NOT NULL
);

-- The history cannot be forgotten: whatever moves an item, this writes the row, in one statement
-- for however many items moved.
CREATE FUNCTION record_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO events (kind, item_id, actor, from_stage, stage, status, attempt, retry_count,
                        reason, error_type, data)
    SELECT 'item', n.id, n.actor, o.stage, n.stage, n.status, n.attempt, n.retry_count,
           n.reason, n.error_type,
           CASE WHEN n.ticket_id IS NULL THEN '{}'::jsonb
                ELSE jsonb_strip_nulls(jsonb_build_object(
                    'ticket', n.ticket_id, 'torrentino_ticket_id', n.torrentino_ticket_id)) END
    FROM moved n JOIN before o ON o.id = n.id
    WHERE n.stage <> o.stage
    ORDER BY n.seq;
    RETURN NULL;
END $$;

CREATE FUNCTION record_arrivals() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO events (kind, item_id, actor, stage, status, attempt, retry_count, reason)
    SELECT 'item', n.id, n.actor, n.stage, n.status, n.attempt, n.retry_count, n.reason
    FROM arrived n ORDER BY n.seq;
    RETURN NULL;
END $$;

CREATE TRIGGER queue_items_moves AFTER UPDATE ON queue_items
    REFERENCING OLD TABLE AS before NEW TABLE AS moved
    FOR EACH STATEMENT EXECUTE FUNCTION record_moves();
CREATE TRIGGER queue_items_arrivals AFTER INSERT ON queue_items
    REFERENCING NEW TABLE AS arrived
    FOR EACH STATEMENT EXECUTE FUNCTION record_arrivals();
