"""The places of a fetcher-writer: how many files are in work at once, and of which ticket next."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Turns:
    """Gives each free place to the ticket that has the fewest, and of these to the one longest ago.

    A ticket never has the last place, if there is more than one: another ticket, which may become
    ready at any time, gets it at once. `on_idle` is called when a ticket needs no place for now.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._most_each = max(1, places - 1)
        self._in_work: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        # When each ticket that waits or works had its last turn.
        self._served: dict[str, int] = {}
        self._numbers = itertools.count(1)
        self._had_one: set[str] = set()
        self.on_idle: Callable[[], None] = lambda: None

    def is_idle(self, ticket_id: str) -> bool:
        """Whether the ticket has had a place, and neither has one now nor waits for one.

        So it waits for something else, such as a folder that a network shows late.
        """
        busy = self._in_work[ticket_id] or ticket_id in self._waiting
        return ticket_id in self._had_one and not busy

    def ended(self, ticket_id: str) -> None:
        """Forget the ticket; its work has ended."""
        self._had_one.discard(ticket_id)

    @asynccontextmanager
    async def turn(self, ticket_id: str) -> AsyncIterator[None]:
        """A place for the block, as soon as it is this ticket's turn."""
        await self._wait(ticket_id)
        try:
            yield
        finally:
            self._leave(ticket_id)

    async def _wait(self, ticket_id: str) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(ticket_id, deque()).append(mine)
        self._give()
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._leave(ticket_id)  # given at the moment of the cancellation
            raise
        finally:
            self._forget(ticket_id)

    def _leave(self, ticket_id: str) -> None:
        self._in_work[ticket_id] -= 1
        self._forget(ticket_id)
        self._give()

    def _forget(self, ticket_id: str) -> None:
        """Drop what is kept of a ticket that neither waits nor works."""
        queue = self._waiting.get(ticket_id, deque())
        while queue and queue[0].done():
            queue.popleft()
        if not queue:
            self._waiting.pop(ticket_id, None)
            if not self._in_work[ticket_id]:
                del self._in_work[ticket_id]
                self._served.pop(ticket_id, None)
                self.on_idle()

    def _give(self) -> None:
        while self._in_work.total() < self._places and (ticket_id := self._next()) is not None:
            queue = self._waiting[ticket_id]
            place = queue.popleft()
            if not queue:
                del self._waiting[ticket_id]
            if place.done():
                continue  # cancelled while it waited
            self._in_work[ticket_id] += 1
            self._had_one.add(ticket_id)
            self._served[ticket_id] = next(self._numbers)
            place.set_result(None)

    def _next(self) -> str | None:
        """The waiting ticket whose turn it is."""
        waiting = [each for each in self._waiting if self._in_work[each] < self._most_each]
        return min(
            waiting, key=lambda each: (self._in_work[each], self._served.get(each, 0)), default=None
        )
