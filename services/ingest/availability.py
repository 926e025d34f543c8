"""Which wanted tracks have their file in place already."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from services.ingest.concurrency_limit import without_place
from services.ingest.verdicts import DECODES_AT_ONCE, Verdicts
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

# Requests over HTTP that may wait for decodes at once, of all users and of one.
_MOST_WAITING = 50
_MOST_OF_ONE = 10
# Files of one request that may be in line: a request for one file does not wait for a whole album.
_IN_LINE = 2


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


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the database and the status of the files tell, before any file is decoded."""

    tracks: Sequence[Track]
    before: Known
    seen: Mapping[str, Seen]
    # The tracks that the catalog has shown.
    named: Collection[str]

    @property
    def to_decode(self) -> list[Track]:
        """Tracks without a recorded file that a file may be of."""
        seen = self.seen
        return [t for t in self.tracks if seen[t.id].candidates or seen[t.id].own]

    @property
    def absent(self) -> list[Track]:
        """Tracks of which there is no file at all."""
        return [
            track
            for track in self.tracks
            if not (one := self.seen[track.id]).recorded
            and not (one.candidates or one.own or one.broken)
        ]


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
        self._verdicts = Verdicts(database, at_once=decodes_at_once)
        self._waiting: Counter[str] = Counter()

    async def look(self, tracks: Sequence[Track]) -> Look:
        """What there is for these tracks, by the status of the files alone.

        Raises:
            Unavailable: PostgreSQL or the media disk is unavailable.
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
        return Look(tracks=tracks, before=before, seen=seen, named=named.keys())

    async def settle(self, look: Look, *, visitor: str | None) -> Available:
        """Which of these tracks have their whole file in place; decodes what is not recorded.

        Problems with what the catalog names are recorded at once, whatever becomes of the request.
        A `visitor` (the user of a request over HTTP) is turned away instead of waiting behind many.

        Raises:
            Unavailable: PostgreSQL, the media disk or ffmpeg is unavailable, or too many requests
                wait for files to be decoded.
        """
        seen = look.seen
        rest = [track for track in look.tracks if seen[track.id].recorded is None]
        line = asyncio.Semaphore(_IN_LINE)
        async with self._waiting_for_decodes(visitor if look.to_decode else None):
            checked = await asyncio.gather(
                *(self._verify(track, seen[track.id], line) for track in rest)
            )
        results = {track.id: each for track, each in zip(rest, checked, strict=True)}
        # Of a track that the catalog has not shown now, nothing is known to be over.
        certain = [each for each in seen.values() if each.track_id in look.named]
        await self._note(look.tracks, look.before, certain, results)
        return self._available(look.before, seen, results)

    @asynccontextmanager
    async def _waiting_for_decodes(self, visitor: str | None) -> AsyncIterator[None]:
        """The visitor's request keeps no place in which others could be answered."""
        if visitor is None:
            yield
            return
        if self._waiting.total() >= _MOST_WAITING or self._waiting[visitor] >= _MOST_OF_ONE:
            raise DependencyDown("media", "files are being decoded for other requests")
        self._waiting[visitor] += 1
        try:
            async with without_place():
                yield
        finally:
            self._waiting[visitor] -= 1

    async def _named(self, tracks: Sequence[Track]) -> dict[str, str | None]:
        """Where the catalog says that each file lies, of the tracks that it has."""
        try:
            return await self._catalog.audio_uris(track.id for track in tracks)
        except DependencyDown as down:
            # A request that carries its tracks needs no catalog; the fetcher-writer checks again.
            log.warning("presence_without_catalog", detail=down.detail)
            return {}

    async def _verify(self, track: Track, seen: Seen, line: asyncio.Semaphore) -> Present:
        if not seen.candidates and not seen.own:
            return Present(whole=None, broken=seen.broken)
        try:
            async with line:
                return await present(
                    self._root.path,
                    seen,
                    expected_ms=track.duration_ms,
                    tolerance_s=self._tolerance_s,
                    tools=await asyncio.to_thread(self._tools),
                    check=self._verdicts.verify,
                )
        except AttemptFailed:
            # Unreadable: the fetcher-writer replaces it, once it has a good file.
            return Present(whole=None, broken=seen.broken)
        except DependencyDown as down:
            if down.dependency != "media":
                raise
            # Of one file, while the root can be read: the fetcher-writer tells what is wrong.
            await self._root.look()
            log.warning("file_not_checked", track_id=track.id, why=down.detail)
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
