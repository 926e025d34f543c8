"""Refused downloads: the list, and what an administrator decides about one."""

from __future__ import annotations

import structlog

from services.ingest.items import Json, Page
from services.ingest.store import ACTOR, requests
from services.ingest.store import refused as store
from shared.announcer import Announcer
from shared.crashpoints import reached
from shared.db import download_moves, moves, refused_files
from shared.db.events import record_events
from shared.db.moves import Releasing
from shared.db.pool import Connection, Database, Row, taken
from shared.errors import Conflict, ErrorType, Unknown
from shared.events import DecisionTaken
from shared.states import RELEASABLE, Stage
from shared.untrusted import token

log = structlog.get_logger()

_DAY_S = 86_400


class RefusedDownloads:
    """Lists, releases and throws away what `refused_files` has."""

    def __init__(self, database: Database, announcer: Announcer, *, keep_days: int) -> None:
        self._database = database
        self._announcer = announcer
        self._keep_days = keep_days

    async def page(self, track_id: str | None, *, limit: int, offset: int) -> Page:
        """Those of a track, or all, newest first."""
        async with self._database.connection() as connection:
            rows, total = await store.page(connection, track_id, limit=limit, offset=offset)
        items = [self._shown(row) for row in rows]
        return Page(items=items, total=total, limit=limit, offset=offset)

    def _shown(self, row: Row) -> Json:
        shown = dict(row)
        state = "released" if shown.pop("in_use") else "kept"
        return shown | {"state": state, "kept_until": row["kept_at"] + self._keep_days * _DAY_S}

    async def release(self, file_id: str, *, by: str) -> str:
        """Have the file placed for its track's item, whatever verification says; the item's id.

        Raises:
            InvalidRequest, Unknown: there is no such file.
            Conflict: it is released already, or no item of its track can take it now.
        """
        token(file_id, what="file id")
        with taken("the track was queued at this very moment: release the file again"):
            item_id = await self._release(file_id, by=by)
        reached("decision.released")
        log.info("refused_file_released", file_id=file_id, item_id=item_id, by=by)
        await self._announcer.announce("fetch", "poll")
        return item_id

    async def _release(self, file_id: str, *, by: str) -> str:
        async with self._database.transaction() as connection:
            item = await store.item_of(connection, file_id)
            file = await _found(connection, file_id)
            if file["in_use"]:
                raise Conflict(f"administrator {file['released_by']} has released this file")
            item_id = _takes(item)
            assert item is not None, "it takes the file"
            reason = f"administrator {by} released {file['file']}, which was refused: "
            releasing = Releasing(
                item_id=item_id,
                file_id=file_id,
                ticket_id=file["ticket_id"],
                reason=reason + file["reason"],
            )
            released = await moves.release(connection, [releasing], actor=ACTOR)
            assert released, "the item is locked, and in such a stage"
            await store.note_release(connection, file_id, by=by)
            if item["stage"] == Stage.FAILED:
                await requests.reopen_albums(connection, item_id)
            if item["ticket_id"] not in (None, file["ticket_id"]):
                await download_moves.withdraw_unwanted(connection, [item["ticket_id"]])
        return item_id

    async def discard(self, file_id: str, *, by: str) -> None:
        """Forget the file; the reaper removes it.

        Raises:
            InvalidRequest, Unknown: there is no such file.
            Conflict: it is released, and being placed.
        """
        token(file_id, what="file id")
        async with self._database.transaction() as connection:
            item = await store.item_of(connection, file_id)
            file = await _found(connection, file_id)
            if file["in_use"]:
                raise Conflict("the file is released, and is being placed")
            await refused_files.forget(connection, file_id)
            decided = DecisionTaken(
                item_id=None if item is None else item["id"],
                track_id=file["track_id"],
                decision="discarded",
                by=by,
                detail=f"administrator {by} discarded the refused file {file['file']}",
            )
            await record_events(connection, [decided], actor=ACTOR)
        log.info("refused_file_discarded", file_id=file_id, by=by)
        await self._announcer.announce()


async def _found(connection: Connection, file_id: str) -> Row:
    row = await store.lock(connection, file_id)
    if row is None:
        raise Unknown(f"there is no refused file {file_id[:80]!r}: it was placed, or removed")
    return row


def _takes(item: Row | None) -> str:
    """The id of the item, if a file can be released for it.

    Raises:
        Conflict: it cannot.
    """
    if item is None:
        raise Conflict("no item of this track is left: request the track, then release the file")
    if item["stage"] == Stage.COMPLETED:
        raise Conflict("the track has its file by now: discard this one")
    if item["stage"] == Stage.FAILED and item["error_type"] == ErrorType.CANCELLED:
        raise Conflict("the item was cancelled: request the track, then release the file")
    if Stage(item["stage"]) not in RELEASABLE:
        raise Conflict(
            f"the item is {item['stage']}, with another download: try again when that has ended"
        )
    return str(item["id"])
