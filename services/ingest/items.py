"""Items as the API shows them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from services.ingest import paused, waiting
from shared.db import health_reports as conditions
from shared.db.pool import Connection, Database, Row
from shared.errors import Unknown
from shared.states import ACTIVE_STATUSES, Stage, Status
from shared.untrusted import token

Json: TypeAlias = dict[str, Any]

_COLUMNS = """
SELECT q.id, q.track_id, q.album_id, q.track_name, q.artist_name, q.album_name, q.status, q.stage,
       q.priority, q.created_at, q.started_at, q.completed_at, q.retry_count, q.attempt,
       q.error_type, q.error_message, q.error_evidence, q.torrentino_ticket_id,
       q.requested_by_user_id, q.bytes_downloaded, q.processing_duration_ms, q.reason,
       extract(epoch FROM q.due_at) AS due_at, q.due_at > now() AS waits, q.seq,
       extract(epoch FROM q.lease_until) AS lease_until,
       extract(epoch FROM t.progressed_at) AS progressed_at,
       q.stage IN ('queued', 'retry_wait') AND EXISTS (
           SELECT 1 FROM queue_items o JOIN tickets ot ON ot.id = o.ticket_id
            WHERE o.track_id = q.track_id AND ot.state = 'withdrawing') AS tombstone,
       q.converted_pct, t.kind AS ticket_kind, t.way, t.torrent_title,
       t.progress_pct, t.speed_bps, t.eta_s, t.seeders, t.size_bytes, t.remote_state, t.candidates,
       f.audio_uri
  FROM queue_items q
  LEFT JOIN tickets t ON t.id = q.ticket_id
  LEFT JOIN media_files f ON f.track_id = q.track_id AND q.status = 'COMPLETED'
"""

# The scheduler's own order, numbered in one pass up to the last of the page: a count for each item
# would go through a long backlog once for each, and what is behind the last tells nothing.
_POSITIONS = """
SELECT p.id, p.position
  FROM (SELECT id, row_number() OVER (ORDER BY priority, seq) AS position
          FROM queue_items
         WHERE stage = 'queued'
           AND (priority, seq) <= (SELECT l.priority, l.seq FROM queue_items l
                                    WHERE l.id = ANY($1) AND l.stage = 'queued'
                                    ORDER BY l.priority DESC, l.seq DESC LIMIT 1)) p
 WHERE p.id = ANY($1)
"""

_BY_IDS = f"{_COLUMNS} WHERE q.id = ANY($1) ORDER BY q.seq"

_MINE = f"""
{_COLUMNS}
 WHERE q.id IN (SELECT item_id FROM item_requesters WHERE user_id = $1 AND withdrawn_at IS NULL)
 ORDER BY CASE q.status WHEN 'DOWNLOADING' THEN 0 WHEN 'PENDING' THEN 1 WHEN 'FAILED' THEN 2
                        ELSE 3 END,
          CASE WHEN q.status = 'PENDING' THEN q.priority END,
          CASE WHEN q.status IN ('PENDING', 'DOWNLOADING') THEN q.seq ELSE -q.seq END
 LIMIT $2 OFFSET $3
"""

_MINE_TOTAL = """
SELECT count(DISTINCT item_id) FROM item_requesters WHERE user_id = $1 AND withdrawn_at IS NULL
"""

_FAILED = f"""
{_COLUMNS} WHERE q.status = 'FAILED' ORDER BY q.completed_at DESC, q.seq DESC LIMIT $1 OFFSET $2
"""

_FAILED_TOTAL = "SELECT count(*) FROM queue_items WHERE status = 'FAILED'"

_WAITS_FOR_A_PERSON = "q.stage IN ('needs_approval', 'needs_choice')"

_ATTENTION = f"""
{_COLUMNS} WHERE {_WAITS_FOR_A_PERSON} ORDER BY q.updated_at, q.seq LIMIT $1 OFFSET $2
"""

_ATTENTION_TOTAL = f"SELECT count(*) FROM queue_items q WHERE {_WAITS_FOR_A_PERSON}"

_REQUESTED_BY = """
SELECT EXISTS (SELECT 1 FROM item_requesters WHERE item_id = $1 AND user_id = $2)
"""

_TIMELINE = """
SELECT extract(epoch FROM at) AS at, actor, from_stage, stage, status, attempt, retry_count,
       reason, error_type, data
  FROM events WHERE item_id = $1 AND kind = 'item' ORDER BY seq LIMIT 1000
"""

_LATEST_OF_TRACKS = f"""
{_COLUMNS}
 WHERE q.id IN (SELECT DISTINCT ON (track_id) id FROM queue_items
                 WHERE track_id = ANY($1) AND status = 'COMPLETED' ORDER BY track_id, seq DESC)
"""


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a list asked for, and how many there are in all."""

    items: list[Json]
    total: int
    limit: int
    offset: int

    def to_json(self) -> Json:
        """The answer of a list."""
        return {
            "items": self.items,
            "total": self.total,
            "limit": self.limit,
            "offset": self.offset,
            "has_more": self.offset + len(self.items) < self.total,
        }


def to_json(row: Row, *, position: int | None, conditions: Json, stall_timeout_s: float) -> Json:
    """An item in the contract's shape; `reason` and `waiting_for` say what is going on."""
    return {
        "id": row["id"],
        "track_id": row["track_id"],
        "album_id": row["album_id"],
        "track_name": row["track_name"],
        "artist_name": row["artist_name"],
        "album_name": row["album_name"],
        "status": row["status"],
        "stage": row["stage"],
        "reason": row["reason"],
        "waiting_for": paused.waits_for(row["stage"], conditions, way=row["way"])
        or waiting.waits_for(row),
        "waits_until": waiting.waits_until(row, stall_timeout_s=stall_timeout_s),
        "priority": row["priority"],
        "created_at": row["created_at"],
        "started_at": row["started_at"],
        "completed_at": row["completed_at"],
        "retry_count": row["retry_count"],
        "next_attempt_at": _next_attempt_at(row),
        "error_type": row["error_type"],
        "error_message": row["error_message"],
        "error_evidence": row["error_evidence"],
        "torrentino_ticket_id": row["torrentino_ticket_id"],
        "release": row["torrent_title"],
        "requested_by_user_id": row["requested_by_user_id"],
        "bytes_downloaded": row["bytes_downloaded"],
        "processing_duration_ms": row["processing_duration_ms"],
        "queue_position": position,
        "progress": _progress(row),
        "audio_uri": row["audio_uri"],
    }


def _next_attempt_at(row: Row) -> int | None:
    waits = row["status"] == Status.PENDING and row["waits"]
    return int(row["due_at"]) if waits else None


def _progress(row: Row) -> Json | None:
    if row["stage"] == Stage.CONVERTING:
        # Of the conversion; what there was to download is here.
        return {
            "ratio": round((row["converted_pct"] or 0) / 100, 4),
            "bytes_done": None,
            "bytes_total": None,
            "speed_bps": None,
            "eta_s": None,
            "seeders": None,
        }
    percent = row["progress_pct"]
    if row["status"] != Status.DOWNLOADING or percent is None:
        return None
    size = row["size_bytes"]
    return {
        "ratio": round(percent / 100, 4),
        "bytes_done": None if size is None else int(size * percent / 100),
        "bytes_total": size,
        "speed_bps": row["speed_bps"],
        "eta_s": row["eta_s"],
        "seeders": row["seeders"],
    }


class Items:
    """Reads items for the API."""

    def __init__(self, database: Database, *, stall_timeout_s: float) -> None:
        self._database = database
        self._stall_timeout_s = stall_timeout_s

    async def by_ids(self, ids: Collection[str]) -> list[Json]:
        """These items, in the order in which they will be worked on."""
        async with self._database.connection() as connection:
            return await self._all(connection, await connection.fetch(_BY_IDS, list(ids)))

    async def latest_completed(self, track_ids: Collection[str]) -> list[Json]:
        """The last completed item of each of these tracks that has one."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_LATEST_OF_TRACKS, list(track_ids))
            return await self._all(connection, rows)

    async def _all(self, connection: Connection, rows: Sequence[Row]) -> list[Json]:
        queued = [row["id"] for row in rows if row["stage"] == Stage.QUEUED]
        found = await connection.fetch(_POSITIONS, queued) if queued else []
        positions = {row["id"]: row["position"] for row in found}
        active = any(row["status"] in ACTIVE_STATUSES for row in rows)
        known = await conditions.read(connection) if active else {}
        return [
            to_json(
                row,
                position=positions.get(row["id"]),
                conditions=known,
                stall_timeout_s=self._stall_timeout_s,
            )
            for row in rows
        ]

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection]:
        """Several reads of one moment, so that a list and its total agree."""
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    async def detail(self, item_id: str, *, for_user: str | None) -> Json:
        """One item with its timeline; `for_user` None sees every item.

        Raises:
            InvalidRequest, Unknown: there is none, or this user has not asked for it.
        """
        token(item_id, what="item id")
        async with self._snapshot() as connection:
            row = await connection.fetchrow(_BY_IDS, [item_id])
            if row is None or not await _visible(connection, item_id, for_user):
                raise Unknown(f"there is no item {item_id[:80]!r} among your requests")
            [item] = await self._all(connection, [row])
            timeline = await connection.fetch(_TIMELINE, item_id)
        return item | {
            "attempt": row["attempt"],
            "remote_state": row["remote_state"],
            "candidates": row["candidates"],
            "ticket_kind": row["ticket_kind"],
            "torrent_title": row["torrent_title"],
            "timeline": [_entry(entry) for entry in timeline],
        }

    async def mine(self, user_id: str, *, limit: int, offset: int) -> Page:
        """What this user asked for, active first."""
        async with self._snapshot() as connection:
            rows = await connection.fetch(_MINE, user_id, limit, offset)
            items = await self._all(connection, rows)
            total = await connection.fetchval(_MINE_TOTAL, user_id)
        return Page(items=items, total=total, limit=limit, offset=offset)

    async def failed(self, *, limit: int, offset: int) -> Page:
        """What failed, newest first."""
        async with self._snapshot() as connection:
            rows = await connection.fetch(_FAILED, limit, offset)
            items = await self._all(connection, rows)
            total = await connection.fetchval(_FAILED_TOTAL)
        return Page(items=items, total=total, limit=limit, offset=offset)

    async def attention(self, *, limit: int, offset: int) -> Page:
        """What waits for a person, longest first, each with what there is to choose from."""
        async with self._snapshot() as connection:
            rows = await connection.fetch(_ATTENTION, limit, offset)
            items = await self._all(connection, rows)
            total = await connection.fetchval(_ATTENTION_TOTAL)
        choices = [_choice(row) for row in rows]
        return Page(
            items=[item | each for item, each in zip(items, choices, strict=True)],
            total=total,
            limit=limit,
            offset=offset,
        )


def _choice(row: Row) -> Json:
    """Where it is decided, and between what."""
    if row["stage"] == Stage.NEEDS_CHOICE:
        evidence = row["error_evidence"] or {}
        return {"decided_at": "here", "candidates": evidence.get("candidates", [])}
    return {"decided_at": "torrentino", "candidates": row["candidates"] or []}


async def _visible(connection: Connection, item_id: str, user_id: str | None) -> bool:
    if user_id is None:
        return True
    return bool(await connection.fetchval(_REQUESTED_BY, item_id, user_id))


def _entry(row: Row) -> Json:
    return {
        "at": float(row["at"]),
        "service": row["actor"],
        "from_stage": row["from_stage"],
        "stage": row["stage"],
        "status": row["status"],
        "attempt": row["attempt"],
        "retry_count": row["retry_count"],
        "reason": row["reason"],
        "error_type": row["error_type"],
        **row["data"],
    }
