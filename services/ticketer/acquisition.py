"""Who searches, chooses and follows for what is new: we (`direct`), or Torrentino's tickets."""

from __future__ import annotations

import asyncio
import time
from typing import Literal, TypeAlias

import structlog

from shared.app import App
from shared.torrentino.client import TorrentinoClient

log = structlog.get_logger()

Way: TypeAlias = Literal["direct", "tickets"]

# What is configured at Torrentino changes only with its restart, and asking for it asks Jackett.
_HOLDS_S = 600.0

_SAY = """
INSERT INTO acquisition (way, reason) VALUES ($1, $2)
ON CONFLICT (one) DO UPDATE SET way = excluded.way, reason = excluded.reason, said_at = now()
"""


class Acquisition:
    """Decides by ACQUISITION, and by what Torrentino says that it has."""

    def __init__(self, app: App, client: TorrentinoClient) -> None:
        self._app = app
        self._client = client
        self._set = app.settings.acquisition
        self._sees_downloads = app.settings.torrentino_downloads_root is not None
        self._decided: tuple[Way, str] | None = None
        self._again_at = 0.0
        # Both ticketers of the process want to know.
        self._deciding = asyncio.Lock()

    async def way(self) -> Way:
        """The way for what is new now; said when it changes.

        Raises:
            Unavailable: Torrentino or PostgreSQL is away, and nothing was decided before.
        """
        async with self._deciding:
            if self._decided is None or time.monotonic() >= self._again_at:
                decided = await self._decide()
                if decided != self._decided:
                    await self._say(*decided)
                self._decided = decided
                self._again_at = time.monotonic() + _HOLDS_S
            return self._decided[0]

    async def _decide(self) -> tuple[Way, str]:
        if self._set != "auto":
            return self._set, "ACQUISITION says so"
        if not self._sees_downloads:
            return "tickets", "TORRENTINO_DOWNLOADS_ROOT is not set"
        if not await self._client.searches():
            return "tickets", "Torrentino has no searcher configured"
        if not await self._client.downloads():
            return "tickets", "Torrentino has no torrent client configured"
        return "direct", "Torrentino has a searcher and a torrent client"

    async def _say(self, way: Way, reason: str) -> None:
        async with self._app.database.connection() as connection:
            await connection.execute(_SAY, way, reason)
        self._app.said["acquisition"] = f"{way}: {reason}"
        log.info("acquisition", way=way, reason=reason)
