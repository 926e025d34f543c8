"""The reaper: hands back the items of dead workers, and removes what is no longer needed.

It only undoes claims whose lease has run out by the database's clock, so any number of copies may
run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from services.reaper.clock_watch import ClockWatch
from services.reaper.store import Store
from shared.announcer import Announcer
from shared.bus.subjects import Wake
from shared.crashpoints import reached
from shared.db.media_root import MediaRoot
from shared.media.paths import INCOMING
from shared.media.refused import kept_ids, prune_refused, sweep_kept
from shared.media.sweep import sweep_temp
from shared.states import CLAIMED_FROM, Stage
from shared.threads import MEDIA

log = structlog.get_logger()

# A temporary file in use is written to all the time; one that is untouched for this long, and whose
# claim is over, is an orphan.
_TEMP_AGE_S = 300.0


@dataclass(frozen=True, kw_only=True)
class RefusedBounds:
    """How long refused downloads are kept, how many bytes in all, and files without a record."""

    keep_s: float
    keep_bytes: int
    unrecorded_s: float = _TEMP_AGE_S


class Reaper:
    """Recovers leases, sweeps temporary files, prunes history."""

    def __init__(
        self,
        *,
        store: Store,
        root: MediaRoot,
        announcer: Announcer,
        retention_s: float,
        clock_watch: ClockWatch,
        lease_s: float,
        refused: RefusedBounds,
        temp_age_s: float = _TEMP_AGE_S,
    ) -> None:
        self._store = store
        self._clock_watch = clock_watch
        self._lease_s = lease_s
        self._root = root
        self._announcer = announcer
        self._retention_s = retention_s
        self._refused = refused
        self.temp_age_s = temp_age_s

    async def recover_leases(self) -> int:
        """Hand back the items whose lease has run out, correct the times that a wrong clock wrote,
        and measure the queue.

        Returns 0: what is left has time until the next run.
        """
        if await self._clock_watch.trusts(self._store.now_s):
            freed = await self._store.give_back()
            if any(freed.values()):
                reached("reaper.gave_back")
                log.warning("leases_recovered", **{stage.value: n for stage, n in freed.items()})
                await self._announcer.announce(*_work(freed))
        if corrected := await self._store.correct_times(lease_s=self._lease_s):
            log.warning("times_corrected", count=corrected)
            await self._announcer.announce("ticket", "fetch")
        await self._store.measure()
        return 0

    async def sweep(self) -> int:
        """Remove orphaned temporary files, and old ones that were moved aside.

        Returns 0: what is left has time until the next sweep.

        Raises:
            DependencyDown: the media root is missing, or another one.
        """
        await self._root.check()
        names = await MEDIA.run(_temp_names, self._root.path)
        in_use, listed = await self._store.in_use(names), frozenset(names)
        removed = await MEDIA.run(
            sweep_temp,
            self._root.path,
            older_than_s=self.temp_age_s,
            # What has come since the list was read is not known to be unused.
            keep=lambda name: name in in_use or name not in listed,
        )
        if removed:
            log.info("temporary_files_removed", count=len(removed))
        pruned = await MEDIA.run(prune_refused, self._root.path)
        pruned += await self._sweep_kept()
        if pruned:
            log.info("refused_files_removed", count=pruned)
        return 0

    async def _sweep_kept(self) -> int:
        """Forget what is kept for too long or beyond the size, and remove what has no record."""
        bounds = self._refused
        expired = await self._store.expire_refused(
            older_than_s=bounds.keep_s, keep_bytes=bounds.keep_bytes
        )
        reached("reaper.expired")
        if expired:
            log.info("refused_files_expired", count=expired)
        ids = await MEDIA.run(kept_ids, self._root.path)
        unrecorded = set(ids) - await self._store.recorded(ids)
        # A file is moved there right before it is recorded.
        return await MEDIA.run(
            partial(sweep_kept, self._root.path, unrecorded, older_than_s=bounds.unrecorded_s)
        )

    async def prune(self) -> int:
        """Delete finished items beyond their retention, with their history; returns how many."""
        deleted = await self._store.prune(older_than_s=self._retention_s)
        if deleted:
            log.info("history_pruned", rows=deleted)
        return deleted


def _work(freed: Mapping[Stage, int]) -> list[Wake]:
    """The wake-ups for what was handed back."""
    targets = {CLAIMED_FROM[stage] for stage, count in freed.items() if count}
    work: dict[Stage, Wake] = {Stage.QUEUED: "ticket", Stage.READY: "fetch"}
    return [kind for stage, kind in work.items() if stage in targets]


def _temp_names(media_path: Path) -> list[str]:
    folder = media_path / INCOMING
    try:
        return [entry.name for entry in folder.iterdir() if entry.suffix == ".part"]
    except FileNotFoundError:
        return []
