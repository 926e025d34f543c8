"""Torrents that our direct downloads have added, and that are not needed any more.

Removed as DOWNLOAD_CLEANUP says. What was there before us is never touched.
"""

from __future__ import annotations

from typing import Literal

from services.poller.downloads_store import TorrentsStore
from services.poller.own_faults import Pauses
from shared.acquisition.direct import Direct
from shared.acquisition.protocol import Begun
from shared.acquisition.removal import Removal
from shared.crashpoints import reached
from shared.errors import Unavailable


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
        for info_hash in await self._store.done_with(also_brought=self._policy == "all"):
            removed += await self._alone(info_hash)
        return removed

    async def _alone(self, info_hash: str) -> bool:
        """Remove it; what fails for this torrent alone waits, and does not stop the others."""
        if not self._pauses.is_over(info_hash):
            return False
        try:
            with self._pauses.after_failure_of(info_hash):
                return await self._remove(info_hash)
        except Unavailable as away:
            if not await self._removal.works(away.dependency):
                raise
            return False

    async def _remove(self, info_hash: str) -> bool:
        done_with = Begun(id="", remote_id=info_hash, folder="")
        reason = "its download is done with"
        if not await self.remote.give_up([done_with], reason=reason, with_data=True):
            return False
        reached("leftovers.removed")
        await self._store.removed(info_hash)
        reached("leftovers.noted")
        return True
