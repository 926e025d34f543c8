"""Torrentino's WebSocket: hints which ticket to poll now."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import structlog

from services.poller.store import Store
from shared.errors import DependencyDown
from shared.health import Health
from shared.settings import Settings
from shared.stop import run_until
from shared.torrentino.ws import ticket_hints

log = structlog.get_logger()


class Hints:
    """A duty that makes hinted tickets due and wakes the poller.

    While Torrentino is away it keeps no connection: Torrentino ends only when all are closed.
    """

    name = "hints"

    def __init__(
        self, *, settings: Settings, store: Store, wake: asyncio.Event, health: Health
    ) -> None:
        assert settings.torrentino_url is not None, "required by the poller"
        key = settings.torrentino_api_key
        self._url = settings.torrentino_url
        self._api_key = key.get_secret_value() if key else None
        self._store = store
        self._wake = wake
        self._torrentino = health.breaker("torrentino")
        self._interval_s = settings.sweep_interval_s

    async def run(self, stop: asyncio.Event) -> None:
        await run_until(stop, self._turn)

    async def _turn(self, stop: asyncio.Event) -> float:
        if self._torrentino.ok:
            await self._listen_while_ok(stop)
        return self._interval_s

    async def _listen_while_ok(self, stop: asyncio.Event) -> None:
        """Take hints until Torrentino is away, or the stop."""
        listening = asyncio.create_task(self._listen())

        async def check(_stop: asyncio.Event) -> float | None:
            return self._interval_s if self._torrentino.ok and not listening.done() else None

        try:
            await run_until(stop, check)
            if listening.done():
                # It ends only by a bug, which this raises.
                await listening
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self) -> None:
        async with aclosing(ticket_hints(self._url, self._api_key)) as hints:
            async for ticket_id in hints:
                await self.take(ticket_id)

    async def take(self, ticket_id: str) -> None:
        """Have this ticket polled at once; dropped while PostgreSQL is unavailable."""
        try:
            # An empty hint follows a (re)connection: hints may have been missed.
            if await self._store.hasten([ticket_id] if ticket_id else None):
                self._wake.set()
        except DependencyDown as error:
            log.debug("hint_dropped", error=str(error))
