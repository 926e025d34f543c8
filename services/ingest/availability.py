"""Which wanted tracks have their file in place already."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from shared.catalog.models import Track
from shared.catalog.sqlite import Catalog
from shared.crashpoints import reached
from shared.db.ledger import Placed
from shared.db.media_root import MediaRoot
from shared.db.pool import Database
from shared.db.presence import Known, Problem, Seen, known, note, notes
from shared.errors import AttemptFailed, DependencyDown
from shared.media.placed_file import Whole
from shared.media.tools import AudioTools
from shared.present import Present, kept, present
from shared.threads import MEDIA

log = structlog.get_logger()

# A request may have to wait for a decode; two at once leave processors for the others.
DECODES_AT_ONCE = 2


@dataclass(frozen=True, kw_only=True)
class Available:
    """Tracks whose file the ledger has, and those whose file was found and verified now."""

    recorded: Mapping[str, Placed] = field(default_factory=dict)
    found: Mapping[str, Whole] = field(default_factory=dict)
    # The catalog names a broken file, which is not to be replaced: these are not fetched.
    broken: Mapping[str, Problem] = field(default_factory=dict)
    # The ledger's rows as read, including those whose file is missing.
    ledger: Mapping[str, Placed] = field(default_factory=dict)

    def require_no_broken(self, track_id: str) -> None:
        """Return if the track may be fetched.

        Raises:
            Conflict: the catalog names a broken file of it, which is not to be replaced.
        """
        if (broken := self.broken.get(track_id)) is not None:
            raise kept(broken)


class Availability:
    """Checks the ledger, the catalog's `audio_uri` and the media root."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        root: MediaRoot,
        tools: Callable[[], AudioTools],
        tolerance_s: float,
        replace_broken: bool,
        decodes_at_once: int = DECODES_AT_ONCE,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._root = root
        self._tools = tools
        self._tolerance_s = tolerance_s
        self._replace_broken = replace_broken
        self._decodes = asyncio.Semaphore(decodes_at_once)

    async def check(self, tracks: Sequence[Track]) -> Available:
        """Which of these tracks have their whole file in place.

        Problems with what the catalog names are recorded at once, whatever becomes of the request.

        Raises:
            Unavailable: PostgreSQL, the media disk or ffmpeg is unavailable.
        """
        try:
            await self._root.check()
        except AttemptFailed as failure:
            raise DependencyDown("media", failure.message) from failure
        named = await self._named(tracks)
        uris = {track.id: named.get(track.id, track.audio_uri) for track in tracks}
        async with self._database.connection() as connection:
            before = await known(connection, [track.id for track in tracks])
        seen = await MEDIA.soon(before.look, self._root.path, uris)
        rest = [track for track in tracks if seen[track.id].recorded is None]
        checked = await asyncio.gather(*(self._verify(track, seen[track.id]) for track in rest))
        results = {track.id: each for track, each in zip(rest, checked, strict=True)}
        # Of a track that the catalog has not shown now, nothing is known to be over.
        certain = [each for each in seen.values() if each.track_id in named]
        await self._note(tracks, before, certain, results)
        return self._available(before, seen, results)

    async def _named(self, tracks: Sequence[Track]) -> dict[str, str | None]:
        """Where the catalog says that each file lies, of the tracks that it has."""
        try:
            return await self._catalog.audio_uris(track.id for track in tracks)
        except DependencyDown as down:
            # A request that carries its tracks needs no catalog; the fetcher-writer checks again.
            log.warning("presence_without_catalog", detail=down.detail)
            return {}

    async def _verify(self, track: Track, seen: Seen) -> Present:
        if not seen.candidates and not seen.own:
            return Present(whole=None, broken=seen.broken)
        async with self._decodes:
            try:
                return await present(
                    self._root.path,
                    seen,
                    expected_ms=track.duration_ms,
                    tolerance_s=self._tolerance_s,
                    tools=await asyncio.to_thread(self._tools),
                )
            except AttemptFailed:
                # Unreadable: the fetcher-writer replaces it, once it has a good file.
                return Present(whole=None, broken=seen.broken)

    async def _note(
        self,
        tracks: Sequence[Track],
        before: Known,
        seen: Sequence[Seen],
        results: Mapping[str, Present],
    ) -> None:
        new = notes(
            before,
            seen,
            found={id_: each.broken for id_, each in results.items() if each.broken},
            albums={track.id: track.album_id for track in tracks},
        )
        if new:
            async with self._database.transaction() as connection:
                await note(connection, new)
            reached("ingest.noted")

    def _available(
        self, before: Known, seen: Mapping[str, Seen], results: Mapping[str, Present]
    ) -> Available:
        broken = {
            id_: each.broken
            for id_, each in results.items()
            if each.whole is None and each.broken is not None and not self._replace_broken
        }
        return Available(
            recorded={id_: each.recorded for id_, each in seen.items() if each.recorded},
            found={id_: each.whole for id_, each in results.items() if each.whole},
            broken=broken,
            ledger=before.ledger,
        )
