"""Adding a chosen release to the torrent client, once, and finding out which torrent it became."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

import structlog

from services.ticketer.choosing import Candidate
from services.ticketer.direct_store import Chosen, DirectStore, Work
from services.ticketer.searching import NoTurn
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
_SOON_S = 3.0

Hashes = Collection[str]


class Adder:
    """Puts the intent first."""

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

    async def add(self, work: Work, candidate: Candidate, there: Hashes) -> bool:
        """Have the client download it, or use what is there; False: the next one's turn.

        `there` are the hashes that the client has. What it does not take is blocked softly.

        Raises:
            NoTurn: another release without a hash is being added.
            OutcomeUnknown: it may have been added; the intent says what.
            Hold: Torrentino, its client or PostgreSQL is away.
        """
        release = candidate.release
        is_there = release.info_hash in there
        ours = not is_there or await self._store.is_ours(release.info_hash, but=work.ticket_id)
        chosen = Chosen(
            release=release,
            links=candidate.links,
            hashes_before=None if release.info_hash else frozenset(there),
        )
        try:
            with taken("another release"):
                held = await self._store.intend(work, chosen, kind=candidate.kind, ours=ours)
        except Conflict:
            raise NoTurn(_SOON_S, "waits until another release is added") from None
        if not held:
            log.warning("claim_lost_before_adding", ticket=work.ticket_id)
            return True
        reached("direct.chosen")
        if is_there:
            return await self._record(work, release.info_hash, release, how="there")
        return await self._add(work, chosen)

    async def go_on(self, work: Work, begun: Chosen, there: Hashes) -> bool:
        """Go on with what an earlier run has begun; False: the next one's turn."""
        if begun.release.info_hash and begun.release.info_hash in there:
            return await self._record(work, begun.release.info_hash, begun.release, how="found")
        return await self._add(work, begun)

    async def _add(self, work: Work, chosen: Chosen) -> bool:
        refusal: NotAdded | None = None
        for link in chosen.links:
            if not await self._store.keep(work, for_s=_ADDING_S):
                log.warning("claim_lost_before_adding", ticket=work.ticket_id)
                return True
            reached("direct.adding")
            try:
                told = await self._client.add_torrent(link)
            except NotAdded as refused:
                log.info("release_not_added", ticket=work.ticket_id, why=refused.message)
                if refused.in_the_way:
                    return await self._use_what_lies_there(work, chosen.release)
                refusal = refused
                continue
            reached("direct.added")
            info_hash = await self._seen(told, chosen)
            if info_hash in (chosen.hashes_before or ()):
                return await self._record_what_was_there(work, info_hash, chosen.release)
            return await self._record(work, info_hash, chosen.release, how="added")
        reason = refusal.message if refusal else "its links are not known any more"
        await self._store.refuse(work, reason=reason)
        reached("direct.blocked")
        return False

    async def _record_what_was_there(self, work: Work, info_hash: str, release: Release) -> bool:
        """The release did not tell its hash: only now it shows that the client had it before."""
        ours = await self._store.is_ours(info_hash, but=work.ticket_id)
        return await self._record(work, info_hash, release, how="there", ours=ours)

    async def _seen(self, told: str | None, chosen: Chosen) -> str:
        """The hash of what was added: what the client says, else what the list shows.

        Raises:
            OutcomeUnknown: the list does not show it (yet).
        """
        if told is not None:
            return told
        for wait_s in _LOOKS_S:
            await self._sleep(wait_s)
            torrents = await self._client.torrents()
            if (found := _found(torrents, chosen)) is not None:
                return found
        raise OutcomeUnknown("the torrent client does not show what was added", settled=False)

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
            # The intent stays: whoever has the items, or withdraws it, finds the torrent by it.
            log.warning("download_of_a_lost_claim", ticket=work.ticket_id, info_hash=info_hash)
        return True

    async def _use_what_lies_there(self, work: Work, release: Release) -> bool:
        """A torrent that was removed without its files: what is left of it may be whole."""
        path = f"{self._root}/{release.title.replace('/', '_')}"
        if await self._store.record_in_the_way(work, path, title=release.title):
            self._recorded("in the way")
        return True

    def _recorded(self, how: str) -> None:
        reached("direct.recorded")
        DOWNLOADS_BEGUN.labels(how).inc()


def _found(torrents: Collection[RemoteTorrent], chosen: Chosen) -> str | None:
    """Which of these torrents is the release."""
    release, before = chosen.release, chosen.hashes_before
    if release.info_hash:
        return next((t.info_hash for t in torrents if t.info_hash == release.info_hash), None)
    new = [t for t in torrents if before is None or t.info_hash not in before]
    # It may have been there before, by another hand.
    for candidates in (new, list(torrents)):
        alike = [t for t in candidates if _alike(t.size_bytes, release.size_bytes)]
        if len(alike) == 1:
            return alike[0].info_hash
        exact = [t for t in alike if t.size_bytes == release.size_bytes]
        if len(exact) == 1:
            return exact[0].info_hash
        if candidates is new and len(new) == 1 and not release.size_bytes:
            return new[0].info_hash
    return None


def _alike(size_bytes: int | None, told_bytes: int) -> bool:
    return bool(size_bytes) and abs((size_bytes or 0) - told_bytes) <= _SIZE_TOLERANCE * told_bytes
