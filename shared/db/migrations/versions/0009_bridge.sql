-- The requests of the catalog server that the bridge has taken over, and what it keeps of the server.

-- One row for each request of the server that was ever seen there waiting.
CREATE TABLE bridge_requests (
    -- The server's id of the request.
    remote_id     text PRIMARY KEY,
    -- Ours: the same, or another one where the same is used up by a withdrawal.
    request_id    text NOT NULL UNIQUE,
    kind          text NOT NULL CHECK (kind IN ('track', 'album')),
    content_id    text NOT NULL,
    user_id       text,
    priority      integer NOT NULL CHECK (priority BETWEEN 1 AND 3),
    -- As the server named them when the request was found.
    content_name  text,
    artist_name   text,
    -- Unix seconds, by the server's clock.
    requested_at  bigint,
    state         text NOT NULL DEFAULT 'found',
    -- The complete listings in a row that lacked it.
    missed        integer NOT NULL DEFAULT 0,
    round         integer NOT NULL DEFAULT 1,
    found_at      timestamptz NOT NULL DEFAULT now(),
    -- When it came into `found`; answers of ingest from before belong to an earlier round.
    asked_at      timestamptz NOT NULL DEFAULT now(),
    announced     integer NOT NULL DEFAULT 0,
    -- When it is announced, asked or tried next.
    due_at        timestamptz NOT NULL DEFAULT now(),
    plays_at      timestamptz,
    ended_at      timestamptz,
    -- deleted, left, receipt: how BRIDGE_CLOSE ended it.
    how           text CHECK (how IN ('deleted', 'left', 'receipt')),
    -- What an administrator may want to know.
    problem       text,
    -- Of a receipt: when it was uploaded last, its job there, and the files that must not change.
    receipt_at    timestamptz,
    receipt_tries integer NOT NULL DEFAULT 0,
    receipt_job   text,
    audio_uris    jsonb,
    CONSTRAINT ended_has_an_end CHECK ((state = 'ended') = (how IS NOT NULL AND ended_at IS NOT NULL))
);
CREATE INDEX bridge_requests_due ON bridge_requests (state, due_at)
    WHERE state NOT IN ('ended', 'withdrawn');
CREATE INDEX bridge_requests_ended ON bridge_requests (ended_at) WHERE ended_at IS NOT NULL;

-- What the bridge knows of the server; one row.
CREATE TABLE bridge_server (
    one                  boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- Of our account's device there: the server ends the sessions of a user's seventh device.
    device_seed          uuid NOT NULL DEFAULT gen_random_uuid(),
    -- When the last run of its availability job began that we know to have ended well.
    available_at         timestamptz,
    -- That run's own time, as the server says it.
    available_run        text,
    -- What that run took, in seconds.
    available_took_s     double precision,
    -- When we asked for a run of which the end is not known yet.
    availability_at      timestamptz,
    -- A run that began later is wanted for files that others have published.
    wanted_at            timestamptz,
    -- When a run that is expensive for the server was announced in the log.
    availability_warned_at timestamptz,
    -- What keeps the job, the question what plays, and the ends of requests from working.
    problems             jsonb NOT NULL DEFAULT '{}'
);

-- An answer of ingest that leaves no request.
CREATE INDEX events_rejected ON events ((data ->> 'request_id')) WHERE kind = 'request.rejected';
CREATE INDEX media_files_published ON media_files (published_at) WHERE published_at IS NOT NULL;

ALTER TABLE transitions DROP CONSTRAINT transitions_life_check;
ALTER TABLE transitions ADD CONSTRAINT transitions_life_check
    CHECK (life IN ('item', 'download', 'scan', 'server_request'));
INSERT INTO transitions (life, from_state, to_state) VALUES
    ('server_request', 'ended', 'followed'),
    ('server_request', 'ending', 'ended'),
    ('server_request', 'followed', 'ended'),
    ('server_request', 'followed', 'ending'),
    ('server_request', 'followed', 'receipt'),
    ('server_request', 'followed', 'withdrawn'),
    ('server_request', 'found', 'followed'),
    ('server_request', 'found', 'rejected'),
    ('server_request', 'found', 'withdrawn'),
    ('server_request', 'receipt', 'ended'),
    ('server_request', 'receipt', 'ending'),
    ('server_request', 'rejected', 'found'),
    ('server_request', 'rejected', 'withdrawn'),
    ('server_request', 'withdrawn', 'found');

CREATE FUNCTION refuse_server_request_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM transitions
                    WHERE life = 'server_request'
                      AND from_state = OLD.state AND to_state = NEW.state) THEN
        RAISE EXCEPTION 'not in the transition table: server_request %: % -> %',
            NEW.remote_id, OLD.state, NEW.state USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER bridge_requests_edges BEFORE UPDATE OF state ON bridge_requests
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state)
    EXECUTE FUNCTION refuse_server_request_edges();
