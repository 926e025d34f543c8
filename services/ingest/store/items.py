"""Items as the API reads them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from shared.db.item_counts import count_items
from shared.db.pool import Connection, Row
from shared.states import DownloadState, Stage

_COLUMNS = f"""
SELECT q.id, q.track_id, q.album_id, q.track_name, q.artist_name, q.album_name, q.status, q.stage,
       q.priority, q.created_at, q.started_at, q.completed_at, q.retry_count, q.attempt,
       q.error_type, q.error_message, q.error_evidence, q.torrentino_ticket_id,
       q.requested_by_user_id, q.bytes_downloaded, q.processing_duration_ms, q.reason,
       extract(epoch FROM q.due_at) AS due_at, q.due_at > now() AS waits, q.seq,
       extract(epoch FROM q.lease_until) AS lease_until,
       extract(epoch FROM t.progressed_at) AS progressed_at,
       q.status = 'PENDING' AND EXISTS (
           SELECT 1 FROM queue_items o JOIN tickets ot ON ot.id = o.ticket_id
            WHERE o.track_id = q.track_id
              AND ot.state = '{DownloadState.WITHDRAWING}') AS tombstone,
       q.converted_pct, t.kind AS ticket_kind, t.way, t.torrent_title,
       t.progress_pct, t.speed_bps, t.eta_s, t.seeders, t.size_bytes, t.remote_state, t.candidates,
       f.audio_uri
  FROM queue_items q
  LEFT JOIN tickets t ON t.id = q.ticket_id
  LEFT JOIN media_files f ON f.track_id = q.track_id AND q.status = 'COMPLETED'
"""

_BY_IDS = f"{_COLUMNS} WHERE q.id = ANY($1) ORDER BY q.seq"

_MINE = f"""
{_COLUMNS}
 WHERE q.id IN (SELECT item_id FROM item_requesters WHERE user_id = $1 AND withdrawn_at IS NULL)
 ORDER BY CASE q.status WHEN 'DOWNLOADING' THEN 0 WHEN 'PENDING' THEN 1 WHEN 'FAILED' THEN 2
                        ELSE 3 END,
          CASE WHEN q.status = 'PENDING' THEN q.priority END,
          CASE WHEN q.status = 'PENDING' THEN q.turn END,
          CASE WHEN q.status IN ('PENDING', 'DOWNLOADING') THEN q.seq ELSE -q.seq END
 LIMIT $2 OFFSET $3
"""

_MINE_TOTAL = """
SELECT count(DISTINCT item_id) FROM item_requesters WHERE user_id = $1 AND withdrawn_at IS NULL
"""

_FAILED = f"""
{_COLUMNS} WHERE q.status = 'FAILED' ORDER BY q.completed_at DESC, q.seq DESC LIMIT $1 OFFSET $2
"""

_IN_STAGES = f"""
{_COLUMNS} WHERE q.stage = ANY($1) ORDER BY q.updated_at, q.seq LIMIT $2 OFFSET $3
"""

_REQUESTED_BY = """
SELECT EXISTS (SELECT 1 FROM item_requesters WHERE item_id = $1 AND user_id = $2)
"""

_TIMELINE = """
SELECT extract(epoch FROM at) AS at, actor, from_stage, stage, status, attempt, retry_count,
       reason, error_type, data
  FROM events WHERE item_id = $1 AND kind IN ('item', 'decision.taken') ORDER BY seq LIMIT 1000
"""

_LATEST_OF_TRACKS = f"""
{_COLUMNS}
 WHERE q.id IN (SELECT DISTINCT ON (track_id) id FROM queue_items
                 WHERE track_id = ANY($1) AND status = 'COMPLETED' ORDER BY track_id, seq DESC)
"""


class Part(NamedTuple):
    """The rows of one page of a list, and how many rows the whole list has."""

    rows: Sequence[Row]
    total: int


async def by_ids(connection: Connection, ids: Collection[str]) -> Sequence[Row]:
    """These items, in the order in which they were queued."""
    return await connection.fetch(_BY_IDS, list(ids))


async def latest_completed(connection: Connection, track_ids: Collection[str]) -> Sequence[Row]:
    """The last completed item of each of these tracks that has one."""
    return await connection.fetch(_LATEST_OF_TRACKS, list(track_ids))


async def of_user(connection: Connection, user_id: str, *, limit: int, offset: int) -> Part:
    """The items that this user requested and has not withdrawn, active first."""
    rows = await connection.fetch(_MINE, user_id, limit, offset)
    return Part(rows, await connection.fetchval(_MINE_TOTAL, user_id))


async def failed(connection: Connection, *, limit: int, offset: int) -> Part:
    """The failed items, newest first."""
    rows = await connection.fetch(_FAILED, limit, offset)
    return Part(rows, await _count(connection, {Stage.FAILED}))


async def in_stages(
    connection: Connection, stages: Collection[Stage], *, limit: int, offset: int
) -> Part:
    """The items in these stages, longest there first."""
    names = [stage.value for stage in stages]
    rows = await connection.fetch(_IN_STAGES, names, limit, offset)
    return Part(rows, await _count(connection, stages))


async def _count(connection: Connection, stages: Collection[Stage]) -> int:
    counts = await count_items(connection)
    return sum(count for (stage, _), count in counts.items() if stage in stages)


async def was_requested_by(connection: Connection, item_id: str, user_id: str) -> bool:
    """Whether this user ever requested the item."""
    return bool(await connection.fetchval(_REQUESTED_BY, item_id, user_id))


async def timeline(connection: Connection, item_id: str) -> Sequence[Row]:
    """The moves of an item and the decisions about its files, oldest first."""
    return await connection.fetch(_TIMELINE, item_id)
