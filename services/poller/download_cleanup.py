"""Torrents that our direct downloads have added, and that are not needed any more.

Removed as DOWNLOAD_CLEANUP says. What was there before us is never touched.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Literal

from services.poller.downloads_store import TorrentsStore
from services.poller.own_faults import Pauses
from shared.acquisition.direct import Direct
from shared.acquisition.protocol import Begun
from shared.acquisition.removal import Removal
from shared.crashpoints import reached

# Torrents without a row are rare, and the list of all is long.
_LOST_EVERY_S = 3600.0


class Leftovers:
    """Removes them where `Removal` lets them go."""

    def __init__(
        self,
        store: TorrentsStore,
        mode: Direct,
        removal: Removal,
        *,
        policy: Literal["keep", "wrong", "all"],
    ) -> None:
        self._removal = removal
        self._pauses = Pauses()
        self._looked_at: float | None = None
        self.remote = mode
        self._store = store
        self._policy = policy

    async def run_once(self) -> int:
        """Remove at most 20 torrents; returns how many.

        Raises:
            Unavailable: Torrentino or its client does not answer; what is left is removed later.
        """
        if self._policy == "keep":
            return 0
        removed = 0
        await self._record_lost()
        for info_hash in await self._store.done_with(also_brought=self._policy == "all"):
            removed += await self._pauses.alone(
                info_hash, partial(self._remove, info_hash), works=self._removal.works
            )
        return removed

    async def _record_lost(self) -> None:
        """Make what an earlier database has added known again, as done with; not every time."""
        now = asyncio.get_running_loop().time()
        if self._looked_at is None or now - self._looked_at >= _LOST_EVERY_S:
            await self._store.record_lost(self.remote.of_installation)
            self._looked_at = now

    async def _remove(self, info_hash: str) -> bool:
        done_with = Begun(id="", remote_id=info_hash, folder="")
        reason = "its download is done with"
        if not await self.remote.give_up([done_with], reason=reason, with_data=True):
            return False
        reached("leftovers.removed")
        await self._store.removed(info_hash)
        reached("leftovers.noted")
        return True
