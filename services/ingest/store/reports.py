"""What an administrator reads: the numbers of the statistics, and the report of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.ingest.store.refused import totals as refused_totals
from shared.db.item_counts import Counts, count_items
from shared.db.pool import Connection, Row
from shared.db.server import NOT_DURABLE
from shared.states import LIVE_DOWNLOADS, SERVING_DOWNLOADS, WAITING, DownloadState, in_sql

# `seq` has the order of arrival, whatever the order in which items are served.
_OLDEST_PENDING = f"""
SELECT min(o.created_at)
  FROM unnest(ARRAY[1, 2, 3]) AS p (priority)
 CROSS JOIN LATERAL (
       SELECT created_at FROM queue_items q
        WHERE q.stage IN ({in_sql(WAITING)}) AND q.priority = p.priority ORDER BY q.seq LIMIT 1) o
"""  # noqa: S608 (made of constants)

_RATES = """
SELECT count(*) FILTER (WHERE status = 'COMPLETED' AND completed_at > e.now - 3600) AS hour_done,
       count(*) FILTER (WHERE status = 'FAILED' AND completed_at > e.now - 3600) AS hour_failed,
       count(*) FILTER (WHERE status = 'COMPLETED') AS day_done,
       count(*) FILTER (WHERE status = 'FAILED') AS day_failed,
       coalesce(sum(bytes_downloaded) FILTER (WHERE status = 'COMPLETED'), 0) AS day_bytes
  FROM queue_items, (SELECT extract(epoch FROM now())::bigint AS now) e
 WHERE completed_at > e.now - 86400
"""

_TICKETS = f"""
SELECT count(*) FILTER (WHERE state IN ({in_sql(LIVE_DOWNLOADS)})) AS in_flight,
       count(*) FILTER (WHERE state = '{DownloadState.WITHDRAWING}') AS withdrawing,
       count(*) FILTER (WHERE state = '{DownloadState.OPEN}'
                          AND remote_state = 'needs_approval') AS need_approval
  FROM tickets WHERE state IN ({in_sql(LIVE_DOWNLOADS)}) AND way = 'tickets'
"""  # noqa: S608 (made of constants)

_DOWNLOADS = f"""
SELECT count(DISTINCT coalesce(info_hash, id)) AS in_flight FROM tickets
 WHERE state IN ({in_sql(SERVING_DOWNLOADS)}) AND way = 'direct'
"""  # noqa: S608 (made of constants)

_SEARCHES = "SELECT count(*) FROM searches_made WHERE at > now() - interval '1 hour'"

_ACQUISITION = "SELECT way, reason FROM acquisition"

_NOW = "SELECT extract(epoch FROM now())::bigint"

_OUTBOX = """
SELECT count(*) AS waiting, extract(epoch FROM now() - min(at)) AS oldest_s
  FROM events WHERE published_at IS NULL
"""

_PROBLEM_COUNTS = "SELECT kind, count(*) AS count FROM presence_problems GROUP BY kind"

_PROBLEMS = """
SELECT track_id, audio_uri, kind, detail, size_bytes,
       extract(epoch FROM seen_at)::bigint AS seen_at
  FROM presence_problems WHERE $1::text IS NULL OR kind = $1
 ORDER BY seen_at DESC, track_id LIMIT $2 OFFSET $3
"""

_PROBLEM_TOTAL = "SELECT count(*) FROM presence_problems WHERE $1::text IS NULL OR kind = $1"

_SCAN = """
SELECT id, queue, scope, max_items, state, problem, total, scanned, present, active, missing,
       unrecorded, to_adopt, adopted, broken, refused, queued, sample,
       extract(epoch FROM created_at)::bigint AS created_at,
       extract(epoch FROM started_at)::bigint AS started_at,
       extract(epoch FROM finished_at)::bigint AS finished_at,
       (extract(epoch FROM coalesce(finished_at, now()) - started_at) * 1000)::bigint
           AS duration_ms
  FROM scans WHERE id = $1
"""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What the statistics are made of."""

    counts: Counts
    # When the oldest item that waits for a ticketer was created, in Unix seconds.
    oldest_pending: int | None
    rates: Row
    tickets: Row
    downloads: int
    searches: int
    # None until a ticketer has chosen the acquisition mode.
    acquisition: Row | None
    outbox: Row
    # How many rows `presence_problems` has, by kind.
    presence_problems: dict[str, int]
    # How many refused downloads are kept, and their bytes.
    refused: Row
    # The settings of PostgreSQL with which a crash loses commits.
    not_durable: list[str]
    now: int


async def numbers(connection: Connection) -> Numbers:
    """Count everything that the statistics show."""
    rates, tickets, outbox = [
        await connection.fetchrow(query) for query in (_RATES, _TICKETS, _OUTBOX)
    ]
    assert rates is not None, "a select of counts has a row"
    assert tickets is not None, "a select of counts has a row"
    assert outbox is not None, "a select of counts has a row"
    return Numbers(
        counts=await count_items(connection),
        oldest_pending=await connection.fetchval(_OLDEST_PENDING),
        rates=rates,
        tickets=tickets,
        downloads=await connection.fetchval(_DOWNLOADS),
        searches=await connection.fetchval(_SEARCHES),
        acquisition=await connection.fetchrow(_ACQUISITION),
        outbox=outbox,
        presence_problems={
            row["kind"]: row["count"] for row in await connection.fetch(_PROBLEM_COUNTS)
        },
        refused=await refused_totals(connection),
        not_durable=await connection.fetchval(f"SELECT {NOT_DURABLE}"),
        now=await connection.fetchval(_NOW),
    )


async def presence_problems(
    connection: Connection, kind: str | None, *, limit: int, offset: int
) -> tuple[Sequence[Row], int]:
    """The presence problems of a kind, newest first, and how many there are."""
    total: int = await connection.fetchval(_PROBLEM_TOTAL, kind)
    return await connection.fetch(_PROBLEMS, kind, limit, offset), total


async def scan(connection: Connection, scan_id: str) -> Row | None:
    """How far a scan is and what it found so far; None where there is none with this id."""
    return await connection.fetchrow(_SCAN, scan_id)
