"""Mistakes that the crash search has to find: a search that cannot fail proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.fetcher_writer import service as fetching
from services.fetcher_writer.outcomes import ACTOR
from services.fetcher_writer.proving import Proven
from services.fetcher_writer.sorting import Found, Sorting
from services.fetcher_writer.store import hold
from services.fetcher_writer.work import Work
from services.ticketer.service import Ticketer
from shared.db.ledger import complete
from shared.media.paths import audio_uri
from shared.media.place import publish


def _complete_before_placing() -> None:
    """COMPLETED is committed first, and the file gets its name after it."""

    async def place(self: fetching.FetcherWriter, work: Work, proven: Proven) -> bool:
        async with self._store.database.transaction() as connection:
            await hold(connection, work.claim)
            await complete(
                connection,
                work.claim.item_id,
                proven.facts,
                fence=work.claim.fence,
                reason="too early",
                actor=ACTOR,
            )
        final = self._root.path / audio_uri(work.track_id, proven.facts.ext)
        return await asyncio.to_thread(publish, proven.temp, final)

    fetching.FetcherWriter._place = place  # type: ignore[method-assign]


def _place_before_verifying() -> None:
    """What was delivered gets its final name as soon as it is there."""
    collected = fetching.FetcherWriter._collect

    async def collect(
        self: fetching.FetcherWriter, work: Work, found: Found, sorting: Sorting
    ) -> Proven:
        temp = self._temp(work)
        await asyncio.to_thread(temp.parent.mkdir, exist_ok=True)
        await self._collector.collect(work.ticket, found.file, temp)
        await asyncio.to_thread(publish, temp, self._root.path / audio_uri(work.track_id, "flac"))
        return await collected(self, work, found, sorting)

    fetching.FetcherWriter._collect = collect  # type: ignore[method-assign]


def _forget_intents() -> None:
    """Nobody looks for the ticket of an earlier try before asking for another."""

    async def find_again(_self: Ticketer, _batch: object) -> dict[str, object]:
        return {}

    Ticketer._find_again = find_again  # type: ignore[method-assign,assignment]


BUGS: dict[str, Callable[[], None]] = {
    "complete before placing": _complete_before_placing,
    "place before verifying": _place_before_verifying,
    "forget intents": _forget_intents,
}
