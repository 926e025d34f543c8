"""Which wanted tracks have their file in place already."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shared.catalog.models import Track
from shared.db.ledger import Placed, placed, unreadable
from shared.db.media_root import MediaRoot
from shared.db.pool import Database
from shared.errors import AttemptFailed, DependencyDown
from shared.media.paths import find_audio
from shared.media.placed_file import find_placed
from shared.media.tools import AudioTools
from shared.media.verify import AudioFacts

# A request may have to wait for a decode; two at once leave processors for the others.
_DECODES_AT_ONCE = 2


@dataclass(frozen=True, kw_only=True)
class Available:
    """Tracks whose file the ledger has, and those whose file was found and verified now."""

    recorded: dict[str, Placed] = field(default_factory=dict)
    found: dict[str, AudioFacts] = field(default_factory=dict)
    # The ledger's rows as read, including those whose file is missing.
    ledger: dict[str, Placed] = field(default_factory=dict)


class Availability:
    """Checks the ledger and the media root."""

    def __init__(
        self,
        *,
        database: Database,
        root: MediaRoot,
        tools: Callable[[], AudioTools],
        tolerance_s: float,
    ) -> None:
        self._database = database
        self._root = root
        self._tools = tools
        self._tolerance_s = tolerance_s
        self._decodes = asyncio.Semaphore(_DECODES_AT_ONCE)

    async def check(self, tracks: Sequence[Track]) -> Available:
        """Which of these tracks have their whole file in place.

        Raises:
            Unavailable: PostgreSQL, the media disk or ffmpeg is unavailable.
        """
        try:
            await self._root.check()
        except AttemptFailed as failure:
            raise DependencyDown("media", failure.message) from failure
        async with self._database.connection() as connection:
            ledger = await placed(connection, [track.id for track in tracks])
        recorded = await asyncio.to_thread(self._in_place, ledger)
        rest = [track for track in tracks if track.id not in recorded]
        unrecorded = await asyncio.to_thread(self._with_a_file, rest)
        facts = await asyncio.gather(*(self._verify(track) for track in unrecorded))
        found = {
            track.id: fact
            for track, fact in zip(unrecorded, facts, strict=True)
            if fact is not None
        }
        return Available(recorded=recorded, found=found, ledger=ledger)

    def _in_place(self, ledger: dict[str, Placed]) -> dict[str, Placed]:
        return {id_: file for id_, file in ledger.items() if file.is_there(self._root.path)}

    def _with_a_file(self, tracks: Sequence[Track]) -> list[Track]:
        try:
            return [track for track in tracks if find_audio(self._root.path, track.id)]
        except OSError as error:
            raise unreadable(error, "checking for files") from error

    async def _verify(self, track: Track) -> AudioFacts | None:
        async with self._decodes:
            try:
                existing = await find_placed(
                    self._root.path,
                    track.id,
                    expected_ms=track.duration_ms,
                    tolerance_s=self._tolerance_s,
                    tools=await asyncio.to_thread(self._tools),
                )
            except AttemptFailed:
                # Unreadable: the fetcher-writer replaces it, once it has a good file.
                return None
            return existing.facts
