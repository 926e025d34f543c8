"""The intake: the server's queue is read page by page, and what waits in it becomes our rows.

A page begins with the last row of the page before. Where it does not, rows have moved while the
queue was read: such a listing, and one that ended early, says nothing of what is gone.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from services.bridge.catalog_server import PAGE, CatalogServer, RemoteRequest
from services.bridge.requests_store import RequestsStore
from shared.crashpoints import reached

log = structlog.get_logger()

# Beyond a hundred thousand requests only the first ones are read.
_MOST_PAGES = 200


class Intake:
    """Takes over the requests that wait at the server, and withdraws those that are gone there."""

    def __init__(
        self,
        *,
        server: CatalogServer,
        store: RequestsStore,
        wake: Callable[[], None],
        page: int = PAGE,
    ) -> None:
        self._server = server
        self._store = store
        self._wake = wake
        self._page = page

    async def run_once(self) -> int:
        """Read the whole queue once; returns 0, for the next reading has its time.

        Raises:
            Unavailable: the server or PostgreSQL is away.
        """
        since = await self._store.now()
        seen: set[str] = set()
        taken = withdrawn = 0
        last: str | None = None
        whole = False
        for number in range(_MOST_PAGES):
            rows = await self._server.requests(offset=number * (self._page - 1), limit=self._page)
            if last is not None and (not rows or rows[0].id != last):
                log.debug("server_queue_moved", page=number)
                taken += await self._take(rows)
                break
            taken += await self._take(rows)
            seen.update(row.id for row in rows)
            if len(rows) < self._page:
                whole = True
                break
            last = rows[-1].id
        if whole:
            withdrawn = len(await self._store.listed(seen, since=since))
            reached("server.listed")
        if taken or withdrawn:
            log.info("server_requests_taken", taken=taken, withdrawn=withdrawn)
            self._wake()
        return 0

    async def _take(self, rows: list[RemoteRequest]) -> int:
        # The server may ignore what was asked of it, so each row is checked.
        waiting = [row for row in rows if row.status == "PENDING" and row.kind is not None]
        taken = await self._store.take(list({row.id: row for row in waiting}.values()))
        if taken:
            reached("server.taken")
        return len(taken)
