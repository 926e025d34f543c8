"""Reading many tickets with few requests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from services.poller.store import OpenTicket, Store
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import ENDED, RemoteState, RemoteTicket

# Up to so many tickets are read one by one, above it by lists.
FEW = 8
_AT_ONCE = 8

# Where open tickets mostly are comes first, so that the last lists are often not needed.
_LISTED = (
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
_LIVE = tuple(state for state in RemoteState if state not in ENDED)
# Torrentino never forgets a ticket that has ended: from so many on, a list is mostly old ones, and
# what is looked for is asked for one by one instead.
_LONG = 1000


class Reader:
    """Gets the present state of tickets from Torrentino."""

    def __init__(self, client: TorrentinoClient, *, dest_root: str) -> None:
        self._client = client
        self._dest_root = dest_root.rstrip("/")
        self._too_long: set[str] = set()

    async def read(self, tickets: Sequence[OpenTicket]) -> dict[str, RemoteTicket | None]:
        """Every one of these tickets by Torrentino's id; None for one that is gone.

        Raises:
            Unavailable: Torrentino does not answer, or refuses us.
        """
        wanted = {ticket.torrentino_id for ticket in tickets if ticket.torrentino_id}
        seen: dict[str, RemoteTicket | None] = {}
        for state in _LISTED:
            if len(wanted) - len(seen) <= FEW:
                break
            if state not in self._too_long:
                await self._list(state, wanted, seen)
        # Tickets change lists between two requests: what was in none is asked for by its id,
        # and only that answer can say that a ticket is gone.
        seen |= await self._one_by_one(wanted - seen.keys())
        return seen

    async def _list(
        self, state: str, wanted: set[str], seen: dict[str, RemoteTicket | None]
    ) -> None:
        listed = 0
        async with aclosing(self._client.list(state=state, page_size=_LONG)) as tickets:
            async for remote in tickets:
                listed += 1
                if remote.id in wanted:
                    seen[remote.id] = remote
                if len(seen) == len(wanted):
                    return
                if listed >= _LONG and state in ENDED:
                    self._too_long.add(state)
                    return

    async def _one_by_one(self, ids: set[str]) -> dict[str, RemoteTicket | None]:
        places = asyncio.Semaphore(_AT_ONCE)

        async def get(ticket_id: str) -> RemoteTicket | None:
            async with places:
                return await self._client.get(ticket_id)

        ordered = sorted(ids)
        return dict(zip(ordered, await asyncio.gather(*(get(id_) for id_ in ordered)), strict=True))

    async def find(self, dest_path: str) -> RemoteTicket | None:
        """The ticket with this path, the live one if there are several."""
        found = (await self._client.find_by_dest_paths([dest_path])).get(dest_path, [])
        live = [remote for remote in found if remote.state in _LIVE]
        return next(iter([*live, *found]), None)

    async def strays(self, store: Store) -> list[RemoteTicket]:
        """Live tickets with a path in our folder that belong to none of our open rows.

        Either a creation that was found too late, or a ticket that came back to life after its
        row was closed.
        """
        mine = [
            remote
            for state in _LIVE
            async for remote in self._client.list(state=state)
            if remote.dest_path.startswith(f"{self._dest_root}/")
        ]
        # The rows are read after the list, so that a ticket made in between is not a stray.
        known = await store.known({remote.dest_path for remote in mine})
        return [
            remote
            for remote in mine
            if (row := known.get(remote.dest_path)) is not None
            and (
                row["state"] == "closed"
                or (row["state"] == "open" and row["torrentino_id"] != remote.id)
            )
        ]
