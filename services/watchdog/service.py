"""The watchdog: finds the tracks of the catalog that have no file, and queues them if asked.

The catalog may have hundreds of millions of tracks. So a scan reads it page by page, checks each
page against the ledger, the queue and the media root, and keeps only counts and a sample. The
scan's row has its position: after a crash another watchdog continues there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeAlias

import structlog

from services.watchdog.adoption import Adoption
from services.watchdog.page_check import PageCheck
from services.watchdog.partial_albums import PartialAlbums
from services.watchdog.store import ACTOR, Findings, Scan, Store
from shared.announcer import Announcer
from shared.catalog.models import Album, Scope, Track
from shared.catalog.sqlite import Catalog
from shared.crashpoints import reached
from shared.db.albums import remember_albums
from shared.db.enqueue import Request, enqueue, record_request
from shared.db.media_root import MediaRoot
from shared.db.presence import note
from shared.errors import AttemptFailed, DependencyDown, Refused, Stale, Unavailable
from shared.events import ScanOrder
from shared.health import Health
from shared.metrics import SCAN_TRACKS
from shared.states import ScanState
from shared.threads import MEDIA

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
        adoption: Adoption,
        replace_broken: bool = False,
        page_size: int = 1000,
        turn_s: float = 1.0,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._root = root
        self._announcer = announcer
        self._health = health
        self._adoption = adoption
        self._replace_broken = replace_broken
        self._partial = PartialAlbums(catalog=catalog, store=store, root=root)
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
        if scan.fresh:
            order = scan.order.model_dump(exclude_none=True)
            log.info("scan_started", scan_id=scan.id, queue=scan.queue, **order)
        if scan.after_rowid == 0:
            await self._store.total(scan, await self._catalog.count(_scope(scan.order)))
        if await self._pages(scan):
            reached("watchdog.through")
            await self._end(scan)
        else:
            await self._store.pause(scan, None, for_s=0)

    async def _end(self, scan: Scan) -> None:
        if scan.order.scope == "all" and not scan.max_items:
            await self._forget_deleted_tracks()
        await self._store.end(scan, ScanState.DONE)
        reached("watchdog.ended")
        log.info("scan_done", scan_id=scan.id)

    async def _forget_deleted_tracks(self) -> None:
        """Delete the problems of tracks that are not in the catalog, which no page shows."""
        last = ""
        while ids := await self._store.problems_after(last):
            uris = await self._catalog.audio_uris(ids)
            await self._store.forget_problems(set(ids) - uris.keys())
            last = ids[-1]

    async def _refuse(self, scan: Scan, why: str) -> None:
        await self._store.end(scan, ScanState.REFUSED, why)
        log.warning("scan_refused", scan_id=scan.id, why=why)

    async def _pages(self, scan: Scan) -> bool:
        """Check pages until the turn is over; True if the scan is through."""
        missing, scope = scan.missing, _scope(scan.order)
        turn_over = time.monotonic() + self._turn_s
        reader = self._partial if scope.kind == "partial_albums" else self._catalog
        pages = reader.pages(scope, after_rowid=scan.after_rowid, page_size=self._page_size)
        async with aclosing(pages):
            async for rowid, tracks in pages:
                self._health.up("catalog")
                left = scan.max_items - missing if scan.max_items else None
                checked = await self._checked(scan, tracks, turn_over)
                if checked is None:
                    return False
                missing += await self._page(scan, rowid, checked, left=left)
                scan = replace(scan, after_rowid=rowid)
                SCAN_TRACKS.inc(len(tracks))
                if scan.max_items and missing >= scan.max_items:
                    return True
                if time.monotonic() >= turn_over:
                    return False
        return True

    async def _checked(
        self, scan: Scan, tracks: Sequence[Track], turn_over: float
    ) -> PageCheck | None:
        """The page's check; with `adopt` when its files are recorded, None: the turn is over."""
        checked = await self._check(tracks)
        lacking = checked.to_adopt
        if not scan.order.adopt or not lacking:
            return checked
        done = await self._adoption.adopt(
            scan,
            lacking,
            checked.before,
            checked.seen,
            go_on=lambda: time.monotonic() < turn_over,
        )
        return await self._check(tracks) if done else None

    async def _check(self, tracks: Sequence[Track]) -> PageCheck:
        before, active = await self._store.known([track.id for track in tracks])
        uris = {track.id: track.audio_uri for track in tracks}
        seen = await MEDIA.run(before.look, self._root.path, uris)
        reached("watchdog.looked")
        return PageCheck(
            tracks=tracks,
            before=before,
            active=active,
            seen=seen,
            replace_broken=self._replace_broken,
        )

    async def _page(self, scan: Scan, rowid: int, checked: PageCheck, *, left: int | None) -> int:
        missing = checked.missing[:left]
        found = checked.findings(missing=len(missing))
        sample = [_sample(track) for track in missing[:_SAMPLE_A_PAGE]]
        await self._record(scan, rowid, checked, missing, replace(found, sample=sample))
        return len(missing)

    async def _record(
        self,
        scan: Scan,
        rowid: int,
        checked: PageCheck,
        missing: Sequence[Track],
        found: Findings,
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
            await note(connection, checked.notes())
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
