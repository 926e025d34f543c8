"""Blocked torrents and releases: the list, and the lifting of a block."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from services.ingest.items import Page
from services.ingest.store import ACTOR
from services.ingest.store import blocks as store
from shared.announcer import Announcer
from shared.crashpoints import reached
from shared.db.events import record_events
from shared.db.pool import Database, Row
from shared.db.releases import memory_of, search_again
from shared.errors import InvalidRequest, Unknown
from shared.events import DecisionTaken
from shared.states import WAITING, Stage
from shared.untrusted import content_id

log = structlog.get_logger()

_MOST_TEXT = 2000


@dataclass(frozen=True, kw_only=True)
class Lifted:
    """The tracks for which a source may be chosen again, and their items that are over."""

    track_ids: list[str]
    failed: list[str]


class BlockedSources:
    """Lists and lifts the blocks of `bad_sources` and `blocklist`."""

    def __init__(self, database: Database, announcer: Announcer) -> None:
        self._database = database
        self._announcer = announcer

    async def page(self, track_id: str | None, *, limit: int, offset: int) -> Page:
        """The blocks of a track, or all, newest first."""
        async with self._database.connection() as connection:
            rows, total = await store.page(connection, track_id, limit=limit, offset=offset)
        items = [dict(row) for row in rows]
        return Page(items=items, total=total, limit=limit, offset=offset)

    async def lift(self, source: object, track_id: object, *, by: str) -> Lifted:
        """Lift the block of a torrent or release, for one track or, with None, for all.

        Items that wait for their next attempt have it now; FAILED ones have to be retried.

        Raises:
            InvalidRequest: the source or the track id is malformed.
            Unknown: it is not blocked.
        """
        if not isinstance(source, str) or not 0 < len(source) <= _MOST_TEXT or "\0" in source:
            raise InvalidRequest('send {"source": …} with the source of a block')
        if track_id is not None:
            if not isinstance(track_id, str):
                raise InvalidRequest("track_id is no text")
            content_id(track_id, what="track id")
        reason = f"administrator {by} lifted the block of {source}"
        async with self._database.transaction() as connection:
            track_ids = await store.lift(connection, source, track_id)
            if not track_ids:
                raise Unknown(f"{source[:80]!r} is not blocked")
            items = await store.last_items(connection, track_ids)
            waiting = [row["id"] for row in items if Stage(row["stage"]) in WAITING]
            await store.hasten(connection, waiting, reason=reason[:500])
            for memory in sorted({_memory(row) for row in items}):
                await search_again(connection, memory)
            item_of = {row["track_id"]: row["id"] for row in items}
            decided = [
                DecisionTaken(
                    item_id=item_of.get(each),
                    track_id=each,
                    decision="lifted",
                    by=by,
                    detail=reason[:1000],
                )
                for each in track_ids
            ]
            await record_events(connection, decided, actor=ACTOR)
        reached("decision.lifted")
        log.info("block_lifted", source=source, tracks=len(track_ids), by=by)
        await self._announcer.announce("ticket")
        failed = [row["id"] for row in items if row["stage"] == Stage.FAILED]
        return Lifted(track_ids=track_ids, failed=failed)


def _memory(row: Row) -> str:
    return memory_of(album_id=row["album_id"] or None, track_id=row["track_id"])
