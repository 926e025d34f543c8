"""The places for files in work. Tickets take turns: one with many files does not delay others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """At most `count` places. A free one goes to the next ticket that waits, for one file."""

    def __init__(self, count: int) -> None:
        self._free = count
        # The tickets that wait, the next one first, each with its files in their order.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def place(self, ticket_id: str) -> AsyncIterator[None]:
        """A place for one file of the ticket, for as long as the block runs."""
        await self._take(ticket_id)
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self, ticket_id: str) -> None:
        if self._free > 0:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(ticket_id, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The place was given at this moment.
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            ticket_id = next(iter(self._waiting))
            files = self._waiting.pop(ticket_id)
            turn = files.popleft()
            if files:
                self._waiting[ticket_id] = files
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
