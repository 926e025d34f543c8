"""Reading many tickets of Torrentino with few requests."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import aclosing
from typing import TypeAlias

from shared.errors import Unavailable
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import ENDED, UNREADABLE, RemoteState, RemoteTicket

# Up to so many tickets are read one by one, above it by lists.
FEW = 8
_AT_ONCE = 8
# A ticket is a small answer. What keeps one waiting keeps all waiting.
_PATIENCE_S = 5.0

# Where open tickets mostly are comes first, so that the last lists are often not needed.
LISTED = (
    RemoteState.DOWNLOADING,
    RemoteState.COMPLETED,
    RemoteState.ACQUIRING,
    RemoteState.PENDING,
    RemoteState.AUTO_APPROVED,
    RemoteState.CONVERTING,
    RemoteState.PLACING,
    RemoteState.PENDING_RETRY,
    RemoteState.NEEDS_APPROVAL,
    RemoteState.ACQUISITION_FAILED,
    RemoteState.FAILED,
)
LIVE = tuple(state for state in RemoteState if state not in ENDED)
# Torrentino never forgets a ticket that has ended: from so many on, a list is mostly old ones, and
# what is wanted is read one by one instead.
LONG_LIST = 1000

# The ticket; None: it is gone; or why it cannot be read, while Torrentino works.
Read: TypeAlias = RemoteTicket | Unavailable | None


class TicketReads:
    """Gets the present state of tickets from Torrentino."""

    def __init__(self, client: TorrentinoClient) -> None:
        self._client = client
        self._too_long: set[str] = set()

    async def read(self, ids: Collection[str]) -> dict[str, Read]:
        """Each of these tickets by Torrentino's id; None for one that is gone.

        Raises:
            Unavailable: Torrentino does not answer, or refuses us.
        """
        wanted = set(ids)
        seen: dict[str, Read] = {}
        for state in LISTED:
            if len(wanted) - len(seen) <= FEW:
                break
            if state not in self._too_long:
                await self._list(state, wanted, seen)
        # Tickets change lists between two requests: what was in none is asked for by its id,
        # and only that answer can say that a ticket is gone.
        seen |= await self._one_by_one(wanted - seen.keys())
        return seen

    async def _list(self, state: str, wanted: set[str], seen: dict[str, Read]) -> None:
        listed = 0
        async with aclosing(self._client.list(state=state, page_size=LONG_LIST)) as tickets:
            async for remote in tickets:
                listed += 1
                if remote.id in wanted and remote.state != UNREADABLE:
                    seen[remote.id] = remote
                if len(seen) == len(wanted):
                    return
                if listed >= LONG_LIST and state in ENDED:
                    self._too_long.add(state)
                    return

    async def _one_by_one(self, ids: set[str]) -> dict[str, Read]:
        places = asyncio.Semaphore(_AT_ONCE)

        async def get(ticket_id: str) -> Read:
            async with places:
                try:
                    return await self._client.get(ticket_id, patience_s=_PATIENCE_S)
                except Unavailable as fault:
                    # Where Torrentino works it is this ticket's; this raises where it does not.
                    await self._client.answers()
                    return fault

        ordered = sorted(ids)
        return dict(zip(ordered, await asyncio.gather(*(get(id_) for id_ in ordered)), strict=True))
