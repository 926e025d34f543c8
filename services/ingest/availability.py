"""What is on disk already, so that it is not asked for again."""

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
from shared.media.placed_file import look
from shared.media.tools import AudioTools
from shared.media.verify import AudioFacts

# Decoding is what a request may have to wait for; two at once leave room for the rest.
_DECODES_AT_ONCE = 2


@dataclass(frozen=True, kw_only=True)
class Available:
    """Tracks whose file the ledger knows, and those whose file was found and checked now."""

    recorded: dict[str, Placed] = field(default_factory=dict)
    found: dict[str, AudioFacts] = field(default_factory=dict)
    # The ledger as it was read, with the rows whose file is not there any more.
    ledger: dict[str, Placed] = field(default_factory=dict)


class Availability:
    """Looks into the ledger and the media root."""

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
            Unavailable: PostgreSQL, the media disk or ffmpeg cannot be used now.
        """
        try:
            await self._root.check()
        except AttemptFailed as failure:
            raise DependencyDown("media", failure.message) from failure
        async with self._database.connection() as connection:
            ledger = await placed(connection, [track.id for track in tracks])
        recorded = await asyncio.to_thread(self._still_there, ledger)
        rest = [track for track in tracks if track.id not in recorded]
        unrecorded = await asyncio.to_thread(self._lying_there, rest)
        facts = await asyncio.gather(*(self._verify(track) for track in unrecorded))
        found = {
            track.id: fact
            for track, fact in zip(unrecorded, facts, strict=True)
            if fact is not None
        }
        return Available(recorded=recorded, found=found, ledger=ledger)

    def _still_there(self, ledger: dict[str, Placed]) -> dict[str, Placed]:
        return {id_: file for id_, file in ledger.items() if file.is_there(self._root.path)}

    def _lying_there(self, tracks: Sequence[Track]) -> list[Track]:
        try:
            return [track for track in tracks if find_audio(self._root.path, track.id)]
        except OSError as error:
            raise unreadable(error, "looking for files") from error

    async def _verify(self, track: Track) -> AudioFacts | None:
        async with self._decodes:
            try:
                existing = await look(
                    self._root.path,
                    track.id,
                    expected_ms=track.duration_ms,
                    tolerance_s=self._tolerance_s,
                    tools=await asyncio.to_thread(self._tools),
                )
            except AttemptFailed:
                # Unreadable: the fetcher-writer will meet it with a good file in hand.
                return None
            return existing.facts
