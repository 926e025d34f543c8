"""Adding a chosen release to the torrent client, once, and finding out which torrent it became."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

import structlog

from services.ticketer.direct_store import Chosen, DirectStore, Work
from services.ticketer.groups import Kind
from services.ticketer.release_choice import Candidate
from services.ticketer.release_search import NoTurn
from shared.choosing.model import Release
from shared.crashpoints import reached
from shared.db.pool import taken
from shared.errors import Conflict, OutcomeUnknown
from shared.metrics import DOWNLOADS_BEGUN
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.torrent import RemoteTorrent
from shared.torrentino.torrents import NotAdded

log = structlog.get_logger()

# The lease lasts as long as the longest call.
_ADDING_S = 90.0
# What was added shows in the list of qBittorrent in a moment.
_LOOKS_S = (0.0, 0.2, 0.5, 1.0, 2.0)
# Indexers round sizes.
_SIZE_TOLERANCE = 0.02
# For the end of an add by another ticketer.
_WAIT_S = 0.5
_WAITS = 20
_SOON_S = 3.0
# What was added so often and never shows is not to be had.
_MOST_ADDS = 4

# Below the folder of downloads.
_OURS = "pezzottify"

Hashes = Collection[str]


class Adder:
    """Puts the intent first, and adds one release at a time over all ticketers."""

    def __init__(
        self,
        store: DirectStore,
        client: TorrentinoClient,
        *,
        downloads_root: str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._client = client
        self._root = downloads_root.rstrip("/")
        self._sleep = sleep
        self._one_at_a_time = asyncio.Lock()

    async def add(self, work: Work, candidate: Candidate, there: Hashes) -> bool:
        """Have the client download it, or use what is there; False: the next one's turn.

        `there` are the hashes that the client has. What it does not take is out
        for a day.

        Raises:
            NoTurn: another ticketer has been adding for long.
            OutcomeUnknown: it may have been added; the intent says what.
            Unavailable: Torrentino, its client or PostgreSQL is away.
        """
        release = candidate.release
        chosen = Chosen(release=release, links=candidate.links, hashes_before=frozenset(there))
        if release.info_hash in there:
            ours = await self._store.is_ours(release.info_hash, but=work.ticket_id)
            if await self._intend(work, chosen, candidate.kind, ours=ours, adds=False):
                return await self._record(work, release.info_hash, release, how="there")
            return True
        for _ in range(_WAITS):
            async with self._one_at_a_time:
                held = await self._intend_to_add(work, candidate)
                if held is not None:
                    return await self._add(work, held) if held.links else True
            # In between whoever has begun to add may go on with it.
            await self._sleep(_WAIT_S)
        raise NoTurn(_SOON_S, "waits until another release is added")

    async def go_on(self, work: Work, begun: Chosen, there: Hashes) -> bool:
        """Go on with what an earlier run has begun; False: the next one's turn."""
        if begun.release.info_hash and begun.release.info_hash in there:
            return await self._record(work, begun.release.info_hash, begun.release, how="found")
        async with self._one_at_a_time:
            return await self._add(work, begun)

    async def _intend_to_add(self, work: Work, candidate: Candidate) -> Chosen | None:
        """Write down what is about to be added; without links when no item is ours any more.

        None: another release is being added.
        """
        # What others have added since is none of ours.
        before = [each.info_hash for each in await self._client.torrents() if each.info_hash]
        chosen = Chosen(
            release=candidate.release, links=candidate.links, hashes_before=frozenset(before)
        )
        try:
            with taken("another release is being added"):
                held = await self._intend(work, chosen, candidate.kind, ours=True, adds=True)
        except Conflict:
            return None
        return chosen if held else replace(chosen, links=())

    async def _intend(
        self, work: Work, chosen: Chosen, kind: Kind, *, ours: bool, adds: bool
    ) -> bool:
        """Write down what is chosen; False: no item is ours any more."""
        held = await self._store.intend(work, chosen, kind=kind, ours=ours, adds=adds)
        if held:
            reached("direct.chosen")
        else:
            log.warning("claim_lost_before_adding", ticket=work.ticket_id)
        return held

    async def _add(self, work: Work, chosen: Chosen) -> bool:
        refusal: NotAdded | None = None
        for link in chosen.links:
            adds = await self._store.adding(work, for_s=_ADDING_S)
            if adds is None:
                log.warning("claim_lost_before_adding", ticket=work.ticket_id)
                return True
            if adds > _MOST_ADDS:
                refusal = NotAdded("the torrent client never shows it", lies_at=None)
                break
            reached("direct.adding")
            try:
                told = await self._client.add_torrent(link, folder=self._folder(work))
            except NotAdded as refused:
                log.info("release_not_added", ticket=work.ticket_id, why=refused.message)
                if refused.lies_at is not None:
                    return await self._use_what_lies_there(work, chosen, refused.lies_at)
                refusal = refused
                continue
            reached("direct.added")
            info_hash = await self._seen(told, chosen)
            if info_hash in chosen.hashes_before:
                return await self._record_what_was_there(work, info_hash, chosen.release)
            return await self._record(work, info_hash, chosen.release, how="added")
        reason = refusal.message if refusal else "its links are not known any more"
        return await self._refuse(work, reason)

    async def _refuse(self, work: Work, reason: str) -> bool:
        await self._store.refuse(work, reason=reason)
        reached("direct.blocked")
        return False

    def _folder(self, work: Work) -> str:
        """Where it is saved: alone, for qBittorrent writes a second torrent of the same folder and
        file names over the first. librqbit saves where it always does, and refuses that."""
        return f"{self._root}/{_OURS}/{work.ticket_id}"

    async def _record_what_was_there(self, work: Work, info_hash: str, release: Release) -> bool:
        """Only now it shows that the client had it before."""
        ours = await self._store.is_ours(info_hash, but=work.ticket_id)
        return await self._record(work, info_hash, release, how="there", ours=ours)

    async def _seen(self, told: str | None, chosen: Chosen) -> str:
        """The hash of what was added: what the client says, if it can be, else what the list shows.

        librqbit may answer with another torrent that somebody adds at the same moment, and has not
        added this one then.

        Raises:
            OutcomeUnknown: the list does not show it (yet).
        """
        known = chosen.release.info_hash
        if known and told in (None, known):
            # Should the indexer have told another one, the poller finds the torrent by its size.
            return known
        for wait_s in _LOOKS_S:
            await self._sleep(wait_s)
            found = _found(await self._client.torrents(), chosen, told=told)
            if found is not None:
                return found
        raise OutcomeUnknown("the torrent client does not show what was added", settled=True)

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
            # The intent stays: whoever has the items, or withdraws it, finds the torrent by it;
            # unless it was withdrawn for good before the torrent was there.
            if ours is not False:
                await self._store.came_late(work, info_hash)
            log.warning("download_of_a_lost_claim", ticket=work.ticket_id, info_hash=info_hash)
        return True

    async def _use_what_lies_there(self, work: Work, chosen: Chosen, lies_at: str) -> bool:
        """A torrent that was removed without its files: what is left of it may be whole.

        Or another one has its files there.
        """
        below = lies_at.removeprefix(f"{self._root}/")
        if below == lies_at:
            return await self._refuse(work, f"its files would be written over {lies_at}")
        path = f"{self._root}/{below.partition('/')[0]}"
        if await self._store.record_in_the_way(work, path, title=chosen.release.title):
            self._recorded("in the way")
        return True

    def _recorded(self, how: str) -> None:
        reached("direct.recorded")
        DOWNLOADS_BEGUN.labels(how).inc()


def _found(torrents: Collection[RemoteTorrent], chosen: Chosen, *, told: str | None) -> str | None:
    """Which of these torrents is the release; `told` is what the client says that it is."""
    release, before = chosen.release, chosen.hashes_before
    by_hash = {torrent.info_hash: torrent for torrent in torrents}
    if release.info_hash in by_hash:
        return release.info_hash
    new = [torrent for torrent in torrents if torrent.info_hash not in before]
    if told is not None:
        # Of another size it is another one, which somebody added at the same moment.
        new = [torrent for torrent in new if torrent.info_hash == told]
    # Where the indexer tells a hash, only what has all of the bytes may have another.
    exact = [each for each in new if each.size_bytes == release.size_bytes]
    if len(exact) == 1 or release.info_hash:
        return exact[0].info_hash if len(exact) == 1 else None
    alike = [each for each in new if _alike(each.size_bytes, release.size_bytes)]
    if not new:
        # It was there before, by another hand.
        named = by_hash.get(told)
        alike = [each for each in torrents if _alike(each.size_bytes, release.size_bytes)]
        # Of hundreds many are alike; that two are of one size is rare.
        exact = [each for each in alike if each.size_bytes == release.size_bytes]
        if named is not None and named in alike:
            return named.info_hash
        if len(exact) == 1:
            return exact[0].info_hash
    return alike[0].info_hash if len(alike) == 1 else None


def _alike(size_bytes: int | None, told_bytes: int) -> bool:
    """Whether these may be the same bytes; what an indexer does not tell may be any."""
    if not told_bytes:
        return True
    return bool(size_bytes) and abs((size_bytes or 0) - told_bytes) <= _SIZE_TOLERANCE * told_bytes
