"""Retries: a FAILED item returns to the queue, for a new attempt with a whole retry budget.

An item that waits for its next attempt has it now, and keeps its budget.

The ticket of the failed attempt stays linked until it is closed, so that the ticketer waits for it.
A late write of the failed attempt has an old fence, and changes nothing.
"""

from __future__ import annotations

import uuid

import structlog

from services.ingest.auth import NotAllowed
from services.ingest.availability import Availability
from services.ingest.limits import Caller, Limits
from services.ingest.store import ACTOR
from services.ingest.store import requests as store
from shared.announcer import Announcer
from shared.catalog.models import Track
from shared.crashpoints import reached
from shared.db import moves
from shared.db.bad_sources import unblock_sources
from shared.db.blocklist import unblock
from shared.db.enqueue import Request, charge, record_request
from shared.db.ledger import Placed, placed
from shared.db.pool import Connection, Database, Row, taken
from shared.db.releases import memory_of, search_again
from shared.errors import Conflict, ErrorType, Unknown
from shared.health import Health
from shared.states import Stage
from shared.untrusted import token

log = structlog.get_logger()

# Failures of the installation and of what it depends on, not of what was asked for.
_OUR_FAULT = frozenset(
    {ErrorType.CONNECTION, ErrorType.TIMEOUT, ErrorType.STORAGE, ErrorType.UNKNOWN}
)


class Retries:
    """Returns FAILED items to the queue, and ends waits."""

    def __init__(
        self,
        *,
        database: Database,
        availability: Availability,
        limits: Limits,
        announcer: Announcer,
        health: Health,
    ) -> None:
        self._database = database
        self._availability = availability
        self._limits = limits
        self._announcer = announcer
        self._health = health

    async def item(self, item_id: str, *, caller: Caller) -> None:
        """Retry one item. An administrator (a caller without limits) may retry any user's, and
        unblocks every torrent and release that was blocked for the track.

        A caller who had withdrawn the item waits for it again.

        Raises:
            InvalidRequest, Unknown: there is none, or this user has not requested it.
            Conflict: it is neither FAILED nor waits for its next attempt, or its track is active or
                in place already.
            LimitReached: the user's requests of the day are used up, or the queue is full.
            NotAllowed: an administrator has ended it, and this is a user.
            Unavailable: it cannot be decided now.
        """
        token(item_id, what="item id")
        async with self._database.connection() as connection:
            row = await _checked(connection, item_id, caller)
        if row["stage"] != Stage.FAILED:
            await self._hasten(row, caller)
            return
        await self._check_ahead(row, caller)
        track = _track(row)
        look = await self._availability.look([track])
        available = await self._availability.settle(look, visitor=caller.user_id)
        self._health.up("media")
        if available.recorded or available.found:
            raise _in_place(track.id)
        available.require_no_broken(track.id)
        with taken("the track was queued at this very moment; request the track to join it"):
            async with self._database.transaction() as connection:
                await self._limits.lock(connection, caller)
                await self._retry(connection, item_id, caller, available.ledger.get(track.id))
        reached("retry.committed")
        log.info("item_retried", item_id=item_id, user_id=caller.user_id)
        await self._announcer.announce("ticket")

    async def _hasten(self, row: Row, caller: Caller) -> None:
        """End the wait of an item that waits for its next attempt."""
        async with self._database.transaction() as connection:
            if not await store.hasten(connection, row["id"], reason=f"retried by {_who(caller)}"):
                raise _not_failed(row)
            await search_again(connection, _memory(row))
        log.info("item_hastened", item_id=row["id"], user_id=caller.user_id)
        await self._announcer.announce("ticket", "fetch")

    async def _check_ahead(self, row: Row, caller: Caller) -> None:
        """Refuse a retry over a limit before its file is decoded."""
        if _is_charged(row, caller):
            async with self._database.connection() as connection:
                await self._limits.check_ahead(connection, caller, new=1, own=0, album=False)

    async def _retry(
        self, connection: Connection, item_id: str, caller: Caller, known: Placed | None
    ) -> None:
        await store.lock_item(connection, item_id)
        row = await _checked(connection, item_id, caller)
        if row["stage"] != Stage.FAILED:
            raise _not_failed(row)
        if (await placed(connection, [row["track_id"]])).get(row["track_id"]) != known:
            raise _in_place(row["track_id"])
        reason = f"retried by {_who(caller)}"
        moved = await moves.retry(connection, [item_id], reason=reason, actor=ACTOR)
        assert moved, "the row is locked, and was FAILED"
        # It is searched for again at once, also if no search found it before.
        await search_again(connection, _memory(row))
        await _wait_again(connection, row, caller)
        await store.reopen_albums(connection, item_id)
        if caller.unlimited:
            await unblock_sources(connection, row["track_id"])
            await unblock(connection, row["track_id"])
        if _is_charged(row, caller):
            await self._limits.check_request(connection, caller)
        else:
            await self._limits.check_queue(connection, caller)


async def _checked(connection: Connection, item_id: str, caller: Caller) -> Row:
    """The item, if it can be retried: it is FAILED, or waits for its next attempt."""
    row = await store.item_to_retry(connection, item_id, caller.user_id)
    if row is None or not (row["asked"] or caller.unlimited):
        raise Unknown(f"there is no item {item_id[:80]!r} among your requests")
    if row["barred"] and not caller.unlimited:
        raise NotAllowed(
            "an administrator has ended this item, and only an administrator retries it; a new"
            " request for the track is possible, and counts as one"
        )
    if row["stage"] != Stage.FAILED and not row["waits"]:
        raise _not_failed(row)
    if row["active"] is not None:
        raise Conflict(
            f"the track is in the queue again as item {row['active']}; request the track to join it"
        )
    return row


def _is_charged(row: Row, caller: Caller) -> bool:
    """Whether the retry counts as a request: not if the user lost the item by no act or wish."""
    return not caller.unlimited and row["error_type"] not in _OUR_FAULT


async def _wait_again(connection: Connection, row: Row, caller: Caller) -> None:
    """Let a caller who had withdrawn the item, or for whom alone it is retried, wait for it.

    By a new request: the old one stays withdrawn, for its withdrawal may be delivered once more.
    A retry that counts is a request in any case.
    """
    waiting = await store.waiting(connection, row["id"], caller.user_id)
    waits = waiting["caller"] or (waiting["anyone"] and not row["asked"])
    charged = _is_charged(row, caller)
    if waits and not charged:
        return
    request = Request(
        id=str(uuid.uuid4()),
        user_id=caller.user_id,
        kind="track",
        content_id=row["track_id"],
        content_name=row["track_name"],
        artist_name=row["artist_name"],
        priority=row["priority"],
        source="http",
    )
    await record_request(connection, request, settled=False)
    if charged:
        await charge(connection, request.id)
    if not waits:
        await store.add_requester(connection, row["id"], request.id, caller.user_id)


def _not_failed(row: Row) -> Conflict:
    return Conflict(
        f"the item is {row['status']}; only one that is FAILED, or that waits for its next attempt,"
        " can be retried"
    )


def _who(caller: Caller) -> str:
    return "an administrator" if caller.unlimited else f"user {caller.user_id}"


def _memory(row: Row) -> str:
    return memory_of(album_id=row["album_id"] or None, track_id=row["track_id"])


def _in_place(track_id: str) -> Conflict:
    return Conflict(
        f"the file of {track_id} is in place already, nothing has to be fetched: request the track,"
        " and the answer says that it is available"
    )


def _track(row: Row) -> Track:
    """The track, with what the check of its file needs."""
    return Track(
        id=row["track_id"],
        name=row["track_name"],
        artists=(),
        album_id=row["album_id"],
        album_name=None,
        album_artist=None,
        disc_number=None,
        track_number=None,
        duration_ms=row["duration_ms"],
        isrc=None,
        popularity=None,
    )
