"""Every metric, declared before use; none has an id as a label."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_PREFIX = "pezzottify_download"

DEPENDENCY_UP = Gauge(
    f"{_PREFIX}_dependency_up", "1 if the dependency answered the last call, else 0", ["dependency"]
)
DEPENDENCY_MISCONFIGURED = Gauge(
    f"{_PREFIX}_dependency_misconfigured",
    "1 while a dependency refuses us until an operator changes a setting",
    ["dependency"],
)
CIRCUIT_STATE = Gauge(
    f"{_PREFIX}_circuit_state",
    "Circuit breaker: 0 closed, 1 recovering, 2 half-open, 3 open",
    ["dependency"],
)
DUTY_RUNS = Counter(f"{_PREFIX}_duty_runs_total", "Runs of a duty by outcome", ["duty", "outcome"])
REQUESTS = Counter(
    f"{_PREFIX}_requests_total", "Requests for audio by API and kind", ["source", "kind"]
)
HTTP_SECONDS = Histogram(
    f"{_PREFIX}_http_request_seconds", "Time to answer an HTTP request", ["route", "status"]
)
DEAD_MESSAGES = Counter(
    f"{_PREFIX}_dead_messages_total", "NATS messages that could not be understood"
)
EVENTS_PUBLISHED = Counter(f"{_PREFIX}_events_published_total", "Events published to JetStream")
ITEMS_CLAIMED = Counter(f"{_PREFIX}_items_claimed_total", "Items claimed by a stage", ["stage"])
TICKETS_CREATED = Counter(
    f"{_PREFIX}_tickets_created_total", "Tickets created at Torrentino, or found again", ["how"]
)
SEARCHES = Counter(
    f"{_PREFIX}_searches_total", "Searches of direct acquisition by result", ["result"]
)
DOWNLOADS_BEGUN = Counter(
    f"{_PREFIX}_downloads_begun_total", "Torrents added, or found in the client, for items", ["how"]
)
DOWNLOADS_ENDED = Counter(
    f"{_PREFIX}_downloads_ended_total", "Downloads of direct acquisition by outcome", ["how"]
)
TICKETS_POLLED = Counter(
    f"{_PREFIX}_tickets_polled_total", "Tickets read at Torrentino", ["remote_state"]
)
ATTEMPTS_FAILED = Counter(
    f"{_PREFIX}_attempts_failed_total", "Attempts that ended without a file", ["error_type"]
)
FILES_PLACED = Counter(f"{_PREFIX}_files_placed_total", "Files placed in the media root", ["how"])
BYTES_PLACED = Counter(f"{_PREFIX}_bytes_placed_total", "Bytes placed in the media root")
VERIFY_SECONDS = Histogram(
    f"{_PREFIX}_verify_seconds",
    "Time to decode and check a file",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
ITEMS = Gauge(f"{_PREFIX}_items", "Items by stage and priority", ["stage", "priority"])
OUTBOX_AGE_SECONDS = Gauge(
    f"{_PREFIX}_outbox_age_seconds", "Age of the oldest event that is not published"
)
LEASES_RECOVERED = Counter(
    f"{_PREFIX}_leases_recovered_total",
    "Items taken back from workers that stopped renewing",
    ["stage"],
)
SERVER_REQUESTS = Counter(
    f"{_PREFIX}_server_requests_total",
    "Requests of the catalog server that were accepted or rejected here, or ended there",
    ["outcome"],
)
AVAILABILITY_RUNS = Counter(
    f"{_PREFIX}_availability_runs_total",
    "Runs of the catalog server's availability job that the bridge has caused",
    ["outcome"],
)
SCAN_TRACKS = Counter(f"{_PREFIX}_scan_tracks_total", "Catalog tracks that scans have checked")
MEDIA_FREE_BYTES = Gauge(f"{_PREFIX}_media_free_bytes", "Free space on the media disk")
CATALOG_ROWS = Counter(
    f"{_PREFIX}_catalog_rows_total", "Rows of the catalog whose audio_uri the bridge has set"
)
FILES = Gauge(
    f"{_PREFIX}_files",
    "Files of the ledger: all, named by the catalog, and played by its server",
    ["state"],
)
FILES_NOT_PLAYABLE = Gauge(
    f"{_PREFIX}_files_not_playable",
    "Files of the ledger that are not known to play, by reason",
    ["reason"],
)
