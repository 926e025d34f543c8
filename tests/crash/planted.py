"""Mistakes that the crash search has to find: a search that cannot fail proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from services.fetcher_writer import service as fetching
from services.fetcher_writer.store import Work, hold
from services.ticketer.service import Ticketer
from shared.db.ledger import complete
from shared.media.paths import audio_uri
from shared.media.place import publish
from shared.media.verify import AudioFacts


def _complete_before_placing() -> None:
    """COMPLETED is committed first, and the file gets its name after it."""

    async def place(
        self: fetching.FetcherWriter, work: Work, temp: Path, facts: AudioFacts, how: str
    ) -> bool:
        async with self._store.database.transaction() as connection:
            await hold(connection, work.claim)
            await complete(
                connection,
                work.claim.item_id,
                facts,
                fence=work.claim.fence,
                reason="too early",
                actor=fetching.ACTOR,
            )
        final = self._root.path / audio_uri(work.track_id, facts.ext)
        return await asyncio.to_thread(publish, temp, final)

    fetching.FetcherWriter._place = place  # type: ignore[method-assign]


def _place_before_verifying() -> None:
    """What was delivered gets its final name as soon as it is there."""
    collected = fetching.FetcherWriter._collect

    async def collect(
        self: fetching.FetcherWriter, work: Work, temp: Path
    ) -> tuple[AudioFacts, str]:
        await asyncio.to_thread(temp.parent.mkdir, exist_ok=True)
        [file, *_] = await self._collector.candidates(work)
        await self._collector.collect(work, file, temp)
        await asyncio.to_thread(publish, temp, self._root.path / audio_uri(work.track_id, "flac"))
        return await collected(self, work, temp)

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
