"""Torrentino's WebSocket, as a hint which ticket to look at now."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import structlog

from services.poller.store import Store
from shared.errors import DependencyDown
from shared.settings import Settings
from shared.torrentino.ws import ticket_hints

log = structlog.get_logger()


class Hints:
    """A duty that makes hinted tickets due and wakes the poller."""

    name = "hints"

    def __init__(self, *, settings: Settings, store: Store, wake: asyncio.Event) -> None:
        assert settings.torrentino_url is not None, "required by the poller"
        key = settings.torrentino_api_key
        self._url = settings.torrentino_url
        self._api_key = key.get_secret_value() if key else None
        self._store = store
        self._wake = wake

    async def run(self, stop: asyncio.Event) -> None:
        listening = asyncio.create_task(self._listen())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([listening, stopped], return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            listening.cancel()
            await asyncio.wait([listening])
        else:
            # It ends only by a bug; without an end of ours, hints would be missing unnoticed.
            stopped.cancel()
            await listening

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
