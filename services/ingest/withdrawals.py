"""Withdrawals of requests. The last requester's withdrawal ends the work and its ticket."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from services.ingest.store import ACTOR
from services.ingest.store import requests as store
from shared.announcer import Announcer
from shared.crashpoints import reached
from shared.db import download_moves, moves
from shared.db.album_requests import settle_albums
from shared.db.pool import Connection, Database
from shared.errors import Conflict, Unknown
from shared.states import ACTIVE_STATUSES, Status
from shared.untrusted import token

log = structlog.get_logger()

_BY_ALL = "withdrawn by all requesters"
_BY_ADMIN = "cancelled by an administrator"


class Withdrawals:
    """Withdraws requests."""

    def __init__(self, *, database: Database, announcer: Announcer) -> None:
        self._database = database
        self._announcer = announcer

    async def request(self, request_id: str, *, user_id: str | None) -> int:
        """Withdraw everything that a request asked for; returns how many items that ended.

        `user_id` None is the catalog server, which may withdraw any user's request. One that is
        another user's, or withdrawn already, changes nothing; one that comes later has no effect.
        """
        async with self._database.transaction() as connection:
            item_ids = await store.withdraw_request(connection, request_id, user_id)
            reached("withdraw.noted")
            ended = await _end(connection, item_ids, for_all=False)
        log.info("request_withdrawn", request_id=request_id, items=len(item_ids), ended=ended)
        await self._announce(ended)
        return ended

    async def item(
        self, item_id: str, *, user_id: str, administrator: bool, for_all: bool = False
    ) -> bool:
        """Withdraw this user's request for one item; True while others still wait for it.

        An administrator who never requested it, or sets `for_all`, cancels it for all requesters:
        they stay, and see why it failed. A repetition changes nothing.

        Raises:
            InvalidRequest, Unknown: there is none, or this user has not requested it.
            Conflict: it is COMPLETED.
        """
        token(item_id, what="item id")
        assert administrator or not for_all, "only an administrator cancels for others"
        async with self._database.transaction() as connection:
            await store.lock_item(connection, item_id)
            row = await store.requested_item(connection, item_id, user_id)
            if row is None or not (row["asked"] or administrator):
                raise Unknown(f"there is no item {item_id[:80]!r} among your requests")
            if row["status"] == Status.COMPLETED:
                raise Conflict("the item is COMPLETED: its file is in place, nothing is withdrawn")
            await store.withdraw_from_item(connection, item_id, user_id)
            for_all = for_all or not row["asked"]
            ended = await _end(connection, [item_id], for_all=for_all)
            # An album without this track may be complete now.
            await settle_albums(connection, [item_id], actor=ACTOR)
        log.info("item_withdrawn", item_id=item_id, user_id=user_id, for_all=for_all, ended=ended)
        await self._announce(ended)
        return not ended and row["status"] in ACTIVE_STATUSES

    async def _announce(self, ended: int) -> None:
        reached("withdraw.committed")
        if ended:
            await self._announcer.announce("poll")
        else:
            await self._announcer.announce()


async def _end(connection: Connection, item_ids: Sequence[str], *, for_all: bool) -> int:
    """End those of these items that no requester waits for (`for_all`: all), and their tickets."""
    await store.lock_active(connection, item_ids)
    reason = _BY_ADMIN if for_all else _BY_ALL
    ended = await moves.cancel(connection, item_ids, for_all=for_all, reason=reason, actor=ACTOR)
    reached("withdraw.ended")
    tickets = [row["ticket_id"] for row in ended if row["ticket_id"]]
    await download_moves.withdraw_unwanted(connection, tickets)
    await settle_albums(connection, [row["id"] for row in ended], actor=ACTOR)
    return len(ended)
