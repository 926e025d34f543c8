"""The reaper: what a dead worker held is given back, what nobody needs is removed.

It decides nothing about an item: it only undoes claims whose lease has run out, by the
database's clock, and so may run in any number of copies.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from services.reaper.store import Store
from shared.bus.nats import Bus
from shared.crashpoints import reached
from shared.db.media_root import MediaRoot
from shared.media.paths import INCOMING
from shared.media.place import sweep_temp
from shared.media.refused import prune_refused
from shared.states import CLAIMED_FROM, Stage

log = structlog.get_logger()

# A temporary file is written to all the time while it is in use; one that is untouched for this
# long and whose claim is over belongs to nobody.
_TEMP_AGE_S = 300.0


class Reaper:
    """Gives back leases, sweeps temporary files, prunes history."""

    def __init__(
        self,
        *,
        store: Store,
        root: MediaRoot,
        bus: Bus,
        relay_wake: asyncio.Event,
        retention_s: float,
        temp_age_s: float = _TEMP_AGE_S,
    ) -> None:
        self._store = store
        self._root = root
        self._bus = bus
        self._relay_wake = relay_wake
        self._retention_s = retention_s
        self._temp_age_s = temp_age_s

    async def give_back(self) -> int:
        """Free the items of silent workers; returns how many."""
        freed = await self._store.give_back()
        total = sum(freed.values())
        if total:
            reached("reaper.gave_back")
            log.warning("leases_recovered", **{stage.value: n for stage, n in freed.items()})
            self._relay_wake.set()
        if freed[Stage.TICKETING]:
            await self._bus.wake("ticket")
        if any(freed[stage] for stage, target in CLAIMED_FROM.items() if target is Stage.READY):
            await self._bus.wake("fetch")
        await self._store.measure()
        return 0

    async def sweep(self) -> int:
        """Remove orphaned temporary files, and old ones that were moved aside.

        Returns 0, for the next sweep has time.
        """
        await self._root.check()
        names = await asyncio.to_thread(_temp_names, self._root.path)
        held = await self._store.held(names)
        removed = await asyncio.to_thread(
            sweep_temp,
            self._root.path,
            older_than_s=self._temp_age_s,
            keep=lambda name: name in held,
        )
        if removed:
            log.info("temporary_files_removed", count=len(removed))
        pruned = await asyncio.to_thread(prune_refused, self._root.path)
        if pruned:
            log.info("refused_files_removed", count=pruned)
        return 0

    async def prune(self) -> int:
        """Delete finished items beyond their retention, with their history."""
        deleted = await self._store.prune(older_than_s=self._retention_s)
        if deleted:
            log.info("history_pruned", rows=deleted)
        return deleted


def _temp_names(media_path: Path) -> list[str]:
    folder = media_path / INCOMING
    try:
        return [entry.name for entry in folder.iterdir() if entry.suffix == ".part"]
    except FileNotFoundError:
        return []
