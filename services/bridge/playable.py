"""What plays: the server itself is asked, and its answers are kept in the ledger.

Published tracks that it has never said anything about are asked about at once; those that did not
play again, in turns; those that played once a day, so that the figures stay true.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import structlog

from services.bridge.catalog_server import ALBUMS_A_BATCH, BATCH, CatalogServer, RemoteTrack
from services.bridge.server_http import Forbidden
from services.bridge.server_store import ServerStore
from shared.clock import Clock

log = structlog.get_logger()

PROBLEM = "playable"
_BATCHES_A_TURN = 20
# Between two tracks that did not play, and between two whole passes over them.
_PASS_S = 60.0
_PLAYED_S = 86_400.0
_FORBIDDEN_S = 600.0


class Playable:
    """Asks the server whether tracks play."""

    def __init__(self, *, server: CatalogServer, store: ServerStore, clock: Clock) -> None:
        self._server = server
        self._store = store
        self._clock = clock
        self._after = ""
        self._next_pass = 0.0
        self._forbidden_until = 0.0

    @property
    def forbidden(self) -> bool:
        """Whether the account was lately found to lack the permission."""
        return self._clock.monotonic() < self._forbidden_until

    async def run_once(self) -> int:
        """Ask about a bounded number of tracks; returns how many were asked for the first time.

        Raises:
            Unavailable: the server or PostgreSQL is away.
        """
        if self.forbidden:
            return 0
        new = await self._store.to_ask(most=_BATCHES_A_TURN * BATCH)
        try:
            await self._ask(new)
            await self._ask(await self._those_of_before())
        except Forbidden as forbidden:
            await self._lacks(forbidden)
            return 0
        return len(new)

    async def _those_of_before(self) -> list[str]:
        """The next of those that did not play, and of those that played long ago."""
        now = self._clock.monotonic()
        if now < self._next_pass:
            return []
        old = await self._store.to_ask(most=BATCH, after=self._after)
        self._after = old[-1] if len(old) == BATCH else ""
        stale = await self._store.to_ask_again(most=BATCH, older_than_s=_PLAYED_S)
        if not self._after and len(stale) < BATCH:
            self._next_pass = now + _PASS_S
        return old + stale

    async def _ask(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), BATCH):
            await self.tracks(ids[start : start + BATCH])

    async def tracks(self, ids: Sequence[str]) -> dict[str, RemoteTrack | None]:
        """What the server says of these tracks, in the ledger, too; at most `BATCH`.

        Raises:
            Forbidden: the account lacks AccessCatalog.
        """
        said = await self._server.tracks(ids)
        await self._record(said)
        return said

    async def albums(self, ids: Sequence[str]) -> dict[str, list[RemoteTrack] | None]:
        """The same for all tracks of these albums.

        Raises:
            Forbidden: the account lacks AccessCatalog.
        """
        found: dict[str, list[RemoteTrack] | None] = {}
        for start in range(0, len(ids), ALBUMS_A_BATCH):
            found |= await self._server.albums(ids[start : start + ALBUMS_A_BATCH])
        tracks = (track for album in found.values() for track in album or ())
        await self._record({track.id: track for track in tracks})
        return found

    async def _record(self, said: Mapping[str, RemoteTrack | None]) -> None:
        plays = [id_ for id_, track in said.items() if track is not None and track.plays]
        does_not = {id_: why_not(track) for id_, track in said.items() if id_ not in set(plays)}
        await self._store.record(plays, does_not)
        if await self._store.say(PROBLEM, None):
            log.info("catalog_server_answers_what_plays")

    async def _lacks(self, forbidden: Forbidden) -> None:
        self._forbidden_until = self._clock.monotonic() + _FORBIDDEN_S
        if await self._store.say(PROBLEM, forbidden.detail):
            log.error("catalog_server_does_not_say_what_plays", why=forbidden.detail)

    async def noted(self, forbidden: Forbidden) -> None:
        """Another duty was refused what `tracks` and `albums` need."""
        await self._lacks(forbidden)


def why_not(track: RemoteTrack | None) -> str:
    """Why a track does not play, in words; few of them, for they are a label of a metric."""
    if track is None:
        return "the catalog server does not know the track"
    if not track.audio_uri:
        return "the catalog server names no file for it"
    return "the catalog server finds no file where the catalog names one"


def silent(tracks: Iterable[RemoteTrack | None]) -> list[RemoteTrack | None]:
    """Those of these tracks that do not play."""
    return [track for track in tracks if track is None or not track.plays]
