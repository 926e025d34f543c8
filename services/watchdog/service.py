"""The watchdog: finds the tracks of the catalog that have no file, and queues them if asked.

The catalog may have hundreds of millions of tracks. So a scan reads it page by page, checks each
page against the ledger, the queue and the media root, and keeps only counts and a sample. The
scan's row has its position: after a crash another watchdog continues there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeAlias

import structlog

from services.watchdog.store import ACTOR, Findings, Scan, Store
from shared.announcer import Announcer
from shared.catalog.models import Album, Scope, Track
from shared.catalog.sqlite import Catalog
from shared.crashpoints import reached
from shared.db.albums import remember_albums
from shared.db.enqueue import Request, enqueue, record_request
from shared.db.ledger import Placed, unreadable
from shared.db.media_root import MediaRoot
from shared.errors import AttemptFailed, DependencyDown, Refused, Stale, Unavailable
from shared.events import ScanOrder
from shared.health import Health
from shared.media.paths import find_audio
from shared.metrics import SCAN_TRACKS
from shared.states import ScanState

Json: TypeAlias = dict[str, Any]

log = structlog.get_logger()

_BACKGROUND = 3
_PAUSE_S = 10.0
_SAMPLE_A_PAGE = 10


class Watchdog:
    """Carries out scans, one at a time."""

    def __init__(
        self,
        *,
        store: Store,
        catalog: Catalog,
        root: MediaRoot,
        announcer: Announcer,
        health: Health,
        page_size: int = 1000,
        turn_s: float = 1.0,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._root = root
        self._announcer = announcer
        self._health = health
        self._page_size = page_size
        self._turn_s = turn_s

    async def run_once(self) -> int:
        """Continue the open scan for about `turn_s`; returns 0 when there is none.

        In turns, because a scan may take hours and a stop must not wait for it.

        Raises:
            Unavailable: the catalog, PostgreSQL or a disk is unavailable; the scan continues later.
        """
        scan = await self._store.claim()
        if scan is None:
            return 0
        reached("watchdog.claimed")
        try:
            await self.carry_on(scan)
        except Stale as stale:
            log.warning("scan_lost", scan_id=scan.id, detail=str(stale))
        except Refused as refused:
            await self._refuse(scan, str(refused))
        except Unavailable as down:
            await self._store.pause(scan, down.detail, for_s=_PAUSE_S)
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._store.pause(scan, "its watchdog was stopped", for_s=0))
            raise
        return 1

    async def carry_on(self, scan: Scan) -> None:
        """Continue a claimed scan for one turn; end it, or release it for the next turn.

        Raises:
            Stale: another watchdog has the scan, or it was cancelled.
            Refused: it cannot be carried out.
            Unavailable: a dependency is unavailable.
        """
        # First of all: with an unmounted media root every track would count as missing.
        try:
            await self._root.check()
        except AttemptFailed as failure:
            raise DependencyDown("media", failure.message) from failure
        except DependencyDown as unmounted:
            if unmounted.dependency != "media":
                raise
            await self._refuse(scan, unmounted.detail)
            return
        self._health.up("media")
        if scan.after_rowid == 0:
            order = scan.order.model_dump(exclude_none=True)
            log.info("scan_started", scan_id=scan.id, queue=scan.queue, **order)
            await self._store.total(scan, await self._catalog.count(_scope(scan.order)))
        if await self._pages(scan):
            reached("watchdog.through")
            await self._store.end(scan, ScanState.DONE)
            reached("watchdog.ended")
            log.info("scan_done", scan_id=scan.id)
        else:
            await self._store.pause(scan, None, for_s=0)

    async def _refuse(self, scan: Scan, why: str) -> None:
        await self._store.end(scan, ScanState.REFUSED, why)
        log.warning("scan_refused", scan_id=scan.id, why=why)

    async def _pages(self, scan: Scan) -> bool:
        """Check pages until the turn is over; True if the scan is through."""
        missing = scan.missing
        turn_over = time.monotonic() + self._turn_s
        pages = self._catalog.pages(
            _scope(scan.order), after_rowid=scan.after_rowid, page_size=self._page_size
        )
        async with aclosing(pages):
            async for rowid, tracks in pages:
                self._health.up("catalog")
                left = scan.max_items - missing if scan.max_items else None
                missing += await self._page(scan, rowid, tracks, left=left)
                SCAN_TRACKS.inc(len(tracks))
                if scan.max_items and missing >= scan.max_items:
                    return True
                if time.monotonic() >= turn_over:
                    return False
        return True

    async def _page(
        self, scan: Scan, rowid: int, tracks: Sequence[Track], *, left: int | None
    ) -> int:
        ledger, active = await self._store.known([track.id for track in tracks])
        waiting = [track for track in tracks if track.id not in active]
        present, unrecorded = await asyncio.to_thread(self._on_disk, waiting, ledger)
        reached("watchdog.looked")
        missing = [t for t in waiting if t.id not in present and t.id not in unrecorded][:left]
        found = Findings(
            scanned=len(tracks),
            present=len(present),
            active=len(active),
            missing=len(missing),
            unrecorded=len(unrecorded),
            sample=[_sample(track) for track in missing[:_SAMPLE_A_PAGE]],
        )
        await self._record(scan, rowid, missing, found)
        return len(missing)

    def _on_disk(
        self, tracks: Sequence[Track], ledger: Mapping[str, Placed]
    ) -> tuple[set[str], set[str]]:
        """The tracks whose recorded file is present, and those with an unrecorded file. Blocks.

        A recorded file that is gone, or has another size, is missing.
        """
        present: set[str] = set()
        unrecorded: set[str] = set()
        try:
            for track in tracks:
                file = ledger.get(track.id)
                if file is not None and file.is_there(self._root.path):
                    present.add(track.id)
                    continue
                damaged = file and self._root.path / file.audio_uri
                if any(path != damaged for path in find_audio(self._root.path, track.id)):
                    unrecorded.add(track.id)
        except OSError as error:
            raise unreadable(error, "checking for files") from error
        return present, unrecorded

    async def _record(
        self, scan: Scan, rowid: int, missing: Sequence[Track], found: Findings
    ) -> None:
        # A disk that was unmounted during the page made its tracks look missing.
        if missing:
            await self._root.check()
        albums = await self._albums(missing) if scan.queue else []
        async with self._store.database.transaction() as connection:
            if scan.queue and missing:
                request = _request(scan)
                await record_request(connection, request, settled=True)
                enqueued = await enqueue(connection, request, missing, actor=ACTOR)
                found = replace(found, queued=len(enqueued.queued))
                await remember_albums(connection, albums)
                reached("watchdog.queued")
            await self._store.progress(connection, scan, rowid, found)
        reached("watchdog.page")
        if found.queued:
            await self._announcer.announce("ticket")

    async def _albums(self, tracks: Sequence[Track]) -> list[Album]:
        """The tracklists of these tracks' albums that are not known yet."""
        wanted = {track.album_id for track in tracks if track.album_id is not None}
        unknown = sorted(wanted - await self._store.known_albums(wanted))
        found = [await self._catalog.album(album_id) for album_id in unknown]
        return [album for album in found if album is not None]


def _scope(order: ScanOrder) -> Scope:
    return Scope(kind=order.scope, album_id=order.album_id, min_popularity=order.min_popularity)


def _request(scan: Scan) -> Request:
    return Request(
        id=scan.id,
        user_id=None,
        kind="scan",
        content_id=scan.order.album_id or scan.order.scope,
        content_name=None,
        artist_name=None,
        priority=_BACKGROUND,
        source="watchdog",
    )


def _sample(track: Track) -> Json:
    return {
        "track_id": track.id,
        "track_name": track.name,
        "artist_names": list(track.artists),
        "album_id": track.album_id,
        "album_name": track.album_name,
    }
