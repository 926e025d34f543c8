"""The incoming folders of tickets that nobody collects from any more."""

from __future__ import annotations

import structlog

from services.fetcher_writer.delivery.collector import Collector
from services.fetcher_writer.store import Store
from shared.crashpoints import reached
from shared.errors import AttemptFailed, Unavailable

log = structlog.get_logger()


class Cleaner:
    """Removes them; what lies in the torrents' own folder is never touched."""

    def __init__(self, store: Store, collector: Collector) -> None:
        self._store = store
        self._collector = collector

    async def clean(self) -> int:
        """Remove the incoming folders that are done with; returns how many."""
        done, held = [], None
        for ticket_id, dest_path in (await self._store.to_clean()).items():
            try:
                if await self._collector.remove(dest_path):
                    reached("cleaning.folder_removed")
                    done.append(ticket_id)
            except (Unavailable, AttemptFailed) as reason:
                held = reason  # perhaps this one only: the others get their turn
        if done:
            await self._store.cleaned(done)
            reached("cleaning.noted")
        if held is None:
            return len(done)
        await self._collector.check()
        # One folder that cannot be removed must not stop the fetching of all others.
        log.warning("folder_not_removed", detail=str(held))
        return 0
