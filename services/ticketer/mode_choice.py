"""By which mode of acquisition a new download is begun: `direct`, or Torrentino's tickets."""

from __future__ import annotations

import asyncio
import time

import structlog

from shared.acquisition.protocol import ModeName
from shared.app import App
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.look_ups import MISSING

log = structlog.get_logger()

# What is configured at Torrentino changes only with its restart, and asking for it asks Jackett.
_VALID_S = 600.0

_RECORD = """
INSERT INTO acquisition (way, reason) VALUES ($1, $2)
ON CONFLICT (one) DO UPDATE SET way = excluded.way, reason = excluded.reason, said_at = now()
"""


class ModeChoice:
    """Decides by ACQUISITION, and by what is configured at Torrentino."""

    def __init__(self, app: App, client: TorrentinoClient) -> None:
        self._app = app
        self._client = client
        self._decided: tuple[ModeName, str] | None = None
        self._valid_until = 0.0
        # All ticketers of the process ask.
        self._deciding = asyncio.Lock()

    async def mode(self) -> ModeName:
        """The mode for new downloads now; a change is recorded and logged.

        Raises:
            Unavailable: Torrentino or PostgreSQL is away, and nothing was decided before.
        """
        async with self._deciding:
            if self._decided is None or time.monotonic() >= self._valid_until:
                decided = await self._decide()
                if decided != self._decided:
                    await self._record(*decided)
                self._decided = decided
                self._valid_until = time.monotonic() + _VALID_S
            return self._decided[0]

    async def _decide(self) -> tuple[ModeName, str]:
        settings = self._app.settings
        if settings.acquisition != "auto":
            return settings.acquisition, "set by ACQUISITION"
        if settings.torrentino_downloads_root is None:
            return "tickets", "TORRENTINO_DOWNLOADS_ROOT is not set"
        lacks = await self._client.look_ups.lacks()
        if lacks is MISSING:
            return await self._without_answer()
        if lacks is not None:
            return "tickets", f"Torrentino has no {lacks} configured"
        return "direct", "Torrentino has a searcher and a torrent client"

    async def _without_answer(self) -> tuple[ModeName, str]:
        """What was decided before; else what needs no searcher of ours."""
        if self._decided is not None:
            return self._decided
        await self._client.answers()
        return "tickets", "Torrentino does not tell what it has configured"

    async def _record(self, mode: ModeName, reason: str) -> None:
        async with self._app.database.connection() as connection:
            await connection.execute(_RECORD, mode, reason)
        self._app.said["acquisition"] = f"{mode}: {reason}"
        log.info("acquisition", way=mode, reason=reason)
