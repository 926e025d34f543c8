"""Items as the API shows them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from services.ingest import explain
from services.ingest.store import items as store
from services.ingest.store.positions import positions as positions_of
from shared.db import health_reports
from shared.db.pool import Connection, Database, Row
from shared.errors import Unknown
from shared.states import ACTIVE_STATUSES, NEEDS_ADMINISTRATOR, Stage, Status
from shared.untrusted import token

Json: TypeAlias = dict[str, Any]
Read: TypeAlias = Callable[[Connection], Awaitable[store.Part]]


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of a list, and how many items the whole list has."""

    items: list[Json]
    total: int
    limit: int
    offset: int

    def to_json(self) -> Json:
        """In the shape of every list of the API."""
        return {
            "items": self.items,
            "total": self.total,
            "limit": self.limit,
            "offset": self.offset,
            "has_more": self.offset + len(self.items) < self.total,
        }


def to_json(row: Row, *, position: int | None, conditions: Json, stall_timeout_s: float) -> Json:
    """An item in the contract's shape.

    `reason` says why it is in its stage, `waiting_for` what has to happen next.
    """
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
        "waiting_for": explain.waiting_for(row, conditions),
        "waits_until": explain.waits_until(row, stall_timeout_s=stall_timeout_s),
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
        # Of the conversion: the download is over.
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
        """These items, in the order in which they were queued."""
        async with self._snapshot() as connection:
            return await self._shown(connection, await store.by_ids(connection, ids))

    async def latest_completed(self, track_ids: Collection[str]) -> list[Json]:
        """The last completed item of each of these tracks that has one."""
        async with self._snapshot() as connection:
            rows = await store.latest_completed(connection, track_ids)
            return await self._shown(connection, rows)

    async def _shown(self, connection: Connection, rows: Sequence[Row]) -> list[Json]:
        queued = [row["id"] for row in rows if row["stage"] == Stage.QUEUED]
        positions = await positions_of(connection, queued)
        active = any(row["status"] in ACTIVE_STATUSES for row in rows)
        conditions = await health_reports.read(connection) if active else {}
        return [
            to_json(
                row,
                position=positions.get(row["id"]),
                conditions=conditions,
                stall_timeout_s=self._stall_timeout_s,
            )
            for row in rows
        ]

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection]:
        """Several reads of one moment, so that a list and its total agree."""
        async with self._database.transaction(snapshot=True) as connection:
            yield connection

    async def detail(self, item_id: str, *, for_user: str | None) -> Json:
        """One item with its timeline; `for_user` None sees every item.

        Raises:
            InvalidRequest, Unknown: there is none, or this user has not requested it.
        """
        token(item_id, what="item id")
        async with self._snapshot() as connection:
            rows = await store.by_ids(connection, [item_id])
            if not rows or not await _visible(connection, item_id, for_user):
                raise Unknown(f"there is no item {item_id[:80]!r} among your requests")
            [item] = await self._shown(connection, rows)
            timeline = await store.timeline(connection, item_id)
        [row] = rows
        return item | {
            "attempt": row["attempt"],
            "remote_state": row["remote_state"],
            "candidates": row["candidates"],
            "ticket_kind": row["ticket_kind"],
            "torrent_title": row["torrent_title"],
            "timeline": [_entry(entry) for entry in timeline],
        }

    async def mine(self, user_id: str, *, limit: int, offset: int) -> Page:
        """What this user requested, active first."""
        return await self._page(
            lambda c: store.of_user(c, user_id, limit=limit, offset=offset),
            limit=limit,
            offset=offset,
        )

    async def failed(self, *, limit: int, offset: int) -> Page:
        """What failed, newest first."""
        return await self._page(
            lambda c: store.failed(c, limit=limit, offset=offset), limit=limit, offset=offset
        )

    async def attention(self, *, limit: int, offset: int) -> Page:
        """What needs an administrator's decision, longest waiting first, with the candidates."""
        return await self._page(
            lambda c: store.in_stages(c, NEEDS_ADMINISTRATOR, limit=limit, offset=offset),
            limit=limit,
            offset=offset,
            more=_choice,
        )

    async def _page(
        self,
        read: Read,
        *,
        limit: int,
        offset: int,
        more: Callable[[Row], Json] = lambda _: {},
    ) -> Page:
        """The page that `read` reads; `more` adds fields to each item."""
        async with self._snapshot() as connection:
            rows, total = await read(connection)
            shown = await self._shown(connection, rows)
        items = [item | more(row) for item, row in zip(shown, rows, strict=True)]
        return Page(items=items, total=total, limit=limit, offset=offset)


def _choice(row: Row) -> Json:
    """Where the decision is made, and between which candidates."""
    if row["stage"] == Stage.NEEDS_CHOICE:
        evidence = row["error_evidence"] or {}
        return {"decided_at": "here", "candidates": evidence.get("candidates", [])}
    return {"decided_at": "torrentino", "candidates": row["candidates"] or []}


async def _visible(connection: Connection, item_id: str, user_id: str | None) -> bool:
    return user_id is None or await store.was_requested_by(connection, item_id, user_id)


def _entry(row: Row) -> Json:
    return {
        "at": float(row["at"]),
        "service": row["actor"],
        "from_stage": row["from_stage"],
        "stage": row["stage"],
        "status": row["status"],
        "attempt": row["attempt"],
        "retry_count": row["retry_count"],
        # A decision that moved no item has its text in the data.
        "reason": row["reason"] or row["data"].get("detail"),
        "error_type": row["error_type"],
        **row["data"],
    }
