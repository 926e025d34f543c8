"""Removing the incoming folders of tickets from which no item collects any more."""

from __future__ import annotations

import structlog

from services.fetcher_writer.delivery.collector import Collector
from services.fetcher_writer.store import Store
from shared.crashpoints import reached
from shared.errors import AttemptFailed, Unavailable

log = structlog.get_logger()


class Cleaner:
    """Removes them. Nothing in the torrents' own folder is touched."""

    def __init__(self, store: Store, collector: Collector) -> None:
        self._store = store
        self._collector = collector

    async def clean(self) -> int:
        """Remove the incoming folders that no item needs; returns how many."""
        done: list[str] = []
        left: list[str] = []
        problem = None
        for ticket_id, dest_path in (await self._store.to_clean()).items():
            try:
                if await self._collector.remove(dest_path):
                    reached("cleaning.folder_removed")
                    done.append(ticket_id)
            except (Unavailable, AttemptFailed) as error:
                problem = error  # perhaps of this folder only: try the others
                left.append(ticket_id)
        if done:
            await self._store.cleaned(done)
            reached("cleaning.noted")
        if problem is None:
            return len(done)
        await self._collector.check()
        # One folder that cannot be removed must not stop fetching, nor the removal of others.
        await self._store.clean_later(left)
        log.warning("folder_not_removed", detail=str(problem))
        return 0
