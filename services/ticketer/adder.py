"""Having a chosen release added, once, and recording which torrent it became."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

import structlog

from services.ticketer.attempt import NoTurn
from services.ticketer.direct_claims import Chosen, Work
from services.ticketer.direct_store import DirectStore
from services.ticketer.groups import Kind
from services.ticketer.release_choice import Candidate
from shared.acquisition.direct import Direct, TorrentOrder
from shared.acquisition.protocol import Begun
from shared.choosing.model import Release
from shared.crashpoints import reached
from shared.db.pool import taken
from shared.errors import Conflict
from shared.metrics import DOWNLOADS_BEGUN
from shared.torrentino.torrents import NotAdded

log = structlog.get_logger()

# The lease lasts as long as the longest call.
ADDING_S = 90.0
# For the end of an add by another ticketer.
_PAUSE_S = 0.5
_PAUSES = 20
_SOON_S = 3.0
# What was added so often and never shows is not available.
_MOST_ADDS = 4

Hashes = Collection[str]


class Adder:
    """Commits the intent first, and adds one release at a time over all ticketers."""

    def __init__(
        self,
        store: DirectStore,
        mode: Direct,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._mode = mode
        self._sleep = sleep
        self._one_at_a_time = asyncio.Lock()

    async def add(self, work: Work, candidate: Candidate, there: Hashes) -> bool:
        """Have the client download it, or use what is there; False: the next release is tried.

        `there` are the hashes that the client has. What it does not take is blocked for a day.

        Raises:
            NoTurn: another ticketer has been adding for long.
            OutcomeUnknown: it may have been added; the intent records what.
            Unavailable: Torrentino, its client or PostgreSQL is away.
        """
        release = candidate.release
        chosen = Chosen(release=release, links=candidate.links, hashes_before=frozenset(there))
        if release.info_hash in there:
            ours = await self._store.is_ours(release.info_hash, but=work.ticket_id)
            try:
                intended = await self._intend(work, chosen, candidate.kind, ours=ours, adds=False)
            except Conflict as busy:
                # It may be the torrent that is being removed: the next turn sees what is there.
                raise NoTurn(_SOON_S, str(busy)) from busy
            if intended:
                return await self._record(work, release.info_hash, release, how="there")
            return True
        for _ in range(_PAUSES):
            async with self._one_at_a_time:
                chosen_to_add = await self._intend_to_add(work, candidate)
                if chosen_to_add is not None:
                    return await self._add(work, chosen_to_add) if chosen_to_add.links else True
            # In between the ticketer that has begun to add may continue.
            await self._sleep(_PAUSE_S)
        raise NoTurn(_SOON_S, "waits until another release is added")

    async def resume(self, work: Work, begun: Chosen) -> bool:
        """Continue what an earlier run has begun; False: the next release is tried."""
        release = begun.release
        earlier = Begun(
            id=work.ticket_id,
            remote_id=release.info_hash or None,
            folder=self._mode.folder_of(work.ticket_id, installation=work.installation),
            size_bytes=release.size_bytes or None,
            before=begun.hashes_before,
        )
        found = (await self._mode.find([earlier])).get(work.ticket_id)
        if found is not None:
            return await self._record(work, found.remote_id, release, how="found")
        async with self._one_at_a_time:
            return await self._add(work, begun)

    async def _intend_to_add(self, work: Work, candidate: Candidate) -> Chosen | None:
        """Commit what is about to be added; without links when no item is ours any more.

        None: another release is being added.
        """
        # What others have added since is not ours.
        before = await self._mode.present()
        chosen = Chosen(release=candidate.release, links=candidate.links, hashes_before=before)
        try:
            with taken("another release is being added"):
                ours = await self._intend(work, chosen, candidate.kind, ours=True, adds=True)
        except Conflict:
            return None
        return chosen if ours else replace(chosen, links=())

    async def _intend(
        self, work: Work, chosen: Chosen, kind: Kind, *, ours: bool, adds: bool
    ) -> bool:
        """Commit what is chosen; False: no item is ours any more."""
        intended = await self._store.intend(work, chosen, kind=kind, ours=ours, adds=adds)
        if intended:
            reached("direct.chosen")
        else:
            log.warning("claim_lost_before_adding", ticket=work.ticket_id)
        return intended

    async def _add(self, work: Work, chosen: Chosen) -> bool:
        reason = "its links are not known any more"
        for link in chosen.links:
            adds = await self._store.adding(work, for_s=ADDING_S)
            if adds is None:
                log.warning("claim_lost_before_adding", ticket=work.ticket_id)
                return True
            if adds > _MOST_ADDS:
                reason = "the torrent client never shows it"
                break
            reached("direct.adding")
            try:
                started = await self._mode.start(self._order(work, chosen, link))
            except NotAdded as refused:
                log.info("release_not_added", ticket=work.ticket_id, why=refused.message)
                if refused.lies_at is not None:
                    return await self._use_what_lies_there(work, chosen, refused.lies_at)
                reason = refused.message
                continue
            if started.was_there:
                return await self._record_what_was_there(work, started.remote_id, chosen.release)
            return await self._record(work, started.remote_id, chosen.release, how="added")
        return await self._refuse(work, reason)

    def _order(self, work: Work, chosen: Chosen, link: str) -> TorrentOrder:
        return TorrentOrder(
            link=link,
            folder=self._mode.folder_of(work.ticket_id, installation=work.installation),
            info_hash=chosen.release.info_hash,
            size_bytes=chosen.release.size_bytes,
            before=chosen.hashes_before,
        )

    async def _refuse(self, work: Work, reason: str) -> bool:
        await self._store.refuse(work, reason=reason)
        reached("direct.blocked")
        return False

    async def _record_what_was_there(self, work: Work, info_hash: str, release: Release) -> bool:
        """Only now it shows that the client had it before."""
        ours = await self._store.is_ours(info_hash, but=work.ticket_id)
        return await self._record(work, info_hash, release, how="there", ours=ours)

    async def _record(
        self, work: Work, info_hash: str, release: Release, *, how: str, ours: bool | None = None
    ) -> bool:
        if await self._store.record(work, info_hash, title=release.title, ours=ours):
            self._recorded(how)
            log.info(
                "download",
                ticket=work.ticket_id,
                items=len(work.items),
                release=release.title,
                info_hash=info_hash,
                how=how,
            )
        else:
            # The intent stays, and the torrent is found by it: by the ticketer that has the items,
            # or by the poller that withdraws it; unless it was withdrawn before the torrent was
            # there.
            if ours is not False:
                await self._store.came_late(work, info_hash)
            log.warning("download_of_a_lost_claim", ticket=work.ticket_id, info_hash=info_hash)
        return True

    async def _use_what_lies_there(self, work: Work, chosen: Chosen, lies_at: str) -> bool:
        """A torrent that was removed without its files: what is left of it may be whole.

        Or another one has its files there.
        """
        path = self._mode.entry_of(lies_at)
        if path is None:
            return await self._refuse(work, f"its files would be written over {lies_at}")
        if await self._store.record_in_the_way(work, path, title=chosen.release.title):
            self._recorded("in the way")
        return True

    def _recorded(self, how: str) -> None:
        reached("direct.recorded")
        DOWNLOADS_BEGUN.labels(how).inc()
