"""How much one user may request. Both figures are counted from rows, never stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from services.ingest.store import requests as store
from shared.db.pool import Connection, Database
from shared.errors import LimitReached

Json: TypeAlias = dict[str, Any]

_FEWER = ", or ask for fewer; an album of any size is taken while nothing else is in your queue"


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A requester. `user_id` None is the catalog server or this service itself."""

    user_id: str | None
    unlimited: bool


class Limits:
    """What every user is allowed: requests a UTC day, and items in the queue."""

    def __init__(self, database: Database, *, max_per_day: int, max_queue: int) -> None:
        self._database = database
        self._max_per_day = max_per_day
        self._max_queue = max_queue

    async def lock(self, connection: Connection, caller: Caller) -> None:
        """Serialize the decisions about this user's requests until the transaction ends."""
        if caller.user_id is not None:
            await store.lock_user(connection, caller.user_id)

    async def check_ahead(
        self, connection: Connection, caller: Caller, *, new: int, own: int, album: bool
    ) -> None:
        """Refuse what is certain to be refused, before anything costly is done for it.

        `new`: so many items it adds to the user's queue at least; `own` are in it already.

        Raises:
            LimitReached: of the day or of the queue.
        """
        if caller.unlimited:
            return
        usage = await store.usage(connection, caller.user_id)
        if usage.requests_today >= self._max_per_day:
            raise self._day_is_used_up()
        self._check_queue(
            usage.in_queue + max(new, 1), whole=album and usage.in_queue == own, more=_FEWER
        )

    async def check_request(
        self, connection: Connection, caller: Caller, *, album_of: int | None = None
    ) -> None:
        """Return if the caller may have made the request that this transaction has recorded.

        `album_of`: the number of items of an album, which may be more than the queue has room for
        where nothing else is in it.

        Raises:
            LimitReached: roll the transaction back.
        """
        if caller.unlimited:
            return
        usage = await store.usage(connection, caller.user_id)
        if usage.requests_today > self._max_per_day:
            raise self._day_is_used_up()
        self._check_queue(usage.in_queue, whole=usage.in_queue == album_of, more=_FEWER)

    async def check_queue(self, connection: Connection, caller: Caller) -> None:
        """Return if the caller's queue may have the item that this transaction has put into it.

        Raises:
            LimitReached: roll the transaction back.
        """
        if not caller.unlimited:
            usage = await store.usage(connection, caller.user_id)
            self._check_queue(usage.in_queue, whole=False, more="")

    def _day_is_used_up(self) -> LimitReached:
        return LimitReached(
            f"{self._max_per_day} requests a day are used up; ask again after midnight UTC"
        )

    def _check_queue(self, in_queue: int, *, whole: bool, more: str) -> None:
        """`whole`: it is one album, and nothing else."""
        if in_queue <= self._max_queue or (whole and self._max_queue > 0):
            return
        raise LimitReached(
            f"this would make {in_queue} items in your queue, {self._max_queue} are allowed;"
            f" wait for some to finish{more}"
        )

    async def report(self, caller: Caller) -> Json:
        """What the caller has used, and may use."""
        async with self._database.connection() as connection:
            usage = await store.usage(connection, caller.user_id)
        return {
            "requests_today": usage.requests_today,
            "max_per_day": None if caller.unlimited else self._max_per_day,
            "in_queue": usage.in_queue,
            "max_queue": None if caller.unlimited else self._max_queue,
            "can_request": caller.unlimited
            or (usage.requests_today < self._max_per_day and usage.in_queue < self._max_queue),
            "unlimited": caller.unlimited,
        }
