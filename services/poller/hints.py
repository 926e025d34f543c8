"""Torrentino's WebSocket, as a hint which ticket to read now."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import structlog

from services.poller.store import Store
from shared.errors import DependencyDown
from shared.health import Health
from shared.runtime import first_of
from shared.settings import Settings
from shared.torrentino.ws import ticket_hints

log = structlog.get_logger()


class Hints:
    """A duty that makes hinted tickets due and wakes the poller.

    It does not listen while Torrentino is away: a Torrentino that stops waits for its connections.
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
        while not stop.is_set():
            listening = asyncio.create_task(self._listen())
            try:
                while self._torrentino.ok and not stop.is_set() and not listening.done():
                    await first_of(stop, timeout_s=self._interval_s)
                if listening.done():
                    # It ends only by a bug, which would not be noticed if this did not end too.
                    await listening
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
            while not self._torrentino.ok and not stop.is_set():
                await first_of(stop, timeout_s=self._interval_s)

    async def _listen(self) -> None:
        async with aclosing(ticket_hints(self._url, self._api_key)) as hints:
            async for ticket_id in hints:
                await self._take(ticket_id)

    async def _take(self, ticket_id: str) -> None:
        try:
            # An empty hint follows a (re)connection: anything may have been missed.
            if await self._store.hasten([ticket_id] if ticket_id else None):
                self._wake.set()
        except DependencyDown as error:
            log.debug("hint_dropped", error=str(error))
