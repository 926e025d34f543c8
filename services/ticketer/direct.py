"""The direct ticketer: from due items to a torrent that the client downloads for them.

Search, choose, add. The chosen release is in the database before it is added; whoever finds an
intent that was begun looks for its torrent, and adds it again, which changes nothing where it is.
"""

from __future__ import annotations

import asyncio
import random

import structlog

from services.ticketer.acquisition import Acquisition
from services.ticketer.adder import Adder
from services.ticketer.base import InHand
from services.ticketer.direct_store import DirectStore, Work
from services.ticketer.release_choice import Candidate, Chooser, NothingSuitable
from services.ticketer.release_search import NoTurn, Searching
from shared.backoff import RetryPolicy
from shared.bus.nats import Bus
from shared.choosing.selection import has_all
from shared.crashpoints import reached
from shared.db import releases
from shared.db.blocklist import OfTrack
from shared.db.items import fail_attempt, go_on, hand_back
from shared.errors import AttemptFailed, OutcomeUnknown, Unavailable
from shared.health import Health
from shared.leases import LeaseKeeper
from shared.metrics import ATTEMPTS_FAILED
from shared.states import Stage
from shared.torrentino.client import TorrentinoClient

log = structlog.get_logger()

ACTOR = "ticketer"
# While a call may still be at work, nobody else may begin to look.
_UNSETTLED_S = 15.0
_SETTLED_S = 1.0
# Indexers that could not be asked may have it; not the next minute.
_INDEXERS_FAILED_S = 3600.0
# Of its tracks: that much may be searched for one by one.
_REST_OF_AN_ALBUM = 0.5
# Releases that one turn tries to add.
_MOST_TRIED = 5
_LATER_S = 1.0


class DirectTicketer(InHand):
    """Gets downloads for all due items, some at once; `run_once` fills the free places."""

    name = "direct ticketer"

    def __init__(
        self,
        *,
        store: DirectStore,
        client: TorrentinoClient,
        acquisition: Acquisition,
        searching: Searching,
        chooser: Chooser,
        adder: Adder,
        leases: LeaseKeeper,
        bus: Bus,
        relay_wake: asyncio.Event,
        health: Health,
        retries: RetryPolicy,
        rng: random.Random,
        sweep_interval_s: float,
    ) -> None:
        super().__init__(
            client=client,
            leases=leases,
            relay_wake=relay_wake,
            health=health,
            rng=rng,
            needs=["torrentino", "torrent_client"],
            sweep_interval_s=sweep_interval_s,
        )
        self._store = store
        self._acquisition = acquisition
        self._searching = searching
        self._chooser = chooser
        self._adder = adder
        self._bus = bus
        self._retries = retries
        self._rng = rng

    async def run_once(self) -> int:
        """Claim items for as many downloads as there are free places; returns how many items.

        Raises:
            Unavailable: Torrentino, its client or PostgreSQL; the items are handed back, and
                no attempt is used up.
        """
        await self._look_first()
        takes_new = await self._acquisition.way() == "direct"
        free = self._free()
        if free <= 0:
            return 0
        batch = await self._store.claim(
            free, takes_new=takes_new, searcher_wait_s=self._searching.wait_s()
        )
        if not batch:
            return 0
        reached("direct.claimed")
        self._relay_wake.set()
        for work in batch:
            self._begin(self._download(work), name=f"download {work.ticket_id}")
        return sum(len(work.items) for work in batch)

    async def _download(self, work: Work) -> None:
        with self._holding(work.claims):
            try:
                await self._choose_and_add(work)
            except NoTurn as later:
                await self._hand_back(work, later.wait_s, str(later))
            except OutcomeUnknown as unknown:
                delay_s = _SETTLED_S if unknown.settled else _UNSETTLED_S
                await self._hand_back(work, delay_s, f"outcome unknown: {unknown}")
            except AttemptFailed as failure:
                await self._fail(work, failure)
            except Unavailable as held:
                # The searcher's outage is no reason to leave alone what needs no search.
                wait_s = 0.0
                if held.dependency == "searcher":
                    # It may have been met by a link, of which the search knows nothing.
                    if not self._searching.wait_s():
                        self._health.failed(held)
                    wait_s = self._searching.wait_s()
                await self._hand_back(work, wait_s, str(held))
                if held.dependency != "searcher":
                    raise
            except asyncio.CancelledError as reason:
                # Cut short, a request may be left at work on the server.
                told = str(reason) or "stopping"
                await asyncio.shield(self._hand_back(work, _UNSETTLED_S, told))
                raise

    async def _choose_and_add(self, work: Work) -> None:
        torrents = await self._client.torrents()
        there = {each.info_hash for each in torrents if each.info_hash is not None}
        self._health.up("torrentino")
        self._health.up("torrent_client")
        if work.begun is not None:
            reached("direct.found")
            if await self._adder.go_on(work, work.begun, there):
                await self._bus.wake("poll")
                return
        held = await self._store.held(work.want)
        for _ in range(_MOST_TRIED):
            blocked = await self._store.blocked(work)
            candidates = await self._chooser.candidates(
                work, blocked=blocked, held=held, there=there
            )
            best = candidates[0]
            work = await self._leave_out(work, best, blocked)
            if await self._adder.add(work, best, there):
                await self._bus.wake("poll")
                return
        raise NoTurn(_LATER_S, "five releases could not be added: tries the next ones")

    async def _leave_out(self, work: Work, best: Candidate, blocked: dict[str, OfTrack]) -> Work:
        """Hand back those of the items whose tracks this release is known not to bring."""
        without = [
            item for item in work.items if has_all([blocked[item.track_id].hard], best.release)
        ]
        if not without:
            return work
        reason = "looks for another release than the others of its album"
        await self._store.leave_out([item.claim for item in without], reason, actor=ACTOR)
        rest = tuple(item for item in work.items if item not in without)
        assert rest, "a release that is blocked for all is not chosen"
        return work.only(rest)

    async def _fail(self, work: Work, failure: AttemptFailed) -> None:
        """End the attempt of each item; nothing found is remembered, if everybody was asked."""
        if isinstance(failure, NothingSuitable) and await self._asks_by_track(work):
            return
        async with self._store.database.transaction() as connection:
            delay_s = None
            if isinstance(failure, NothingSuitable):
                if failure.failed:
                    delay_s = _INDEXERS_FAILED_S
                else:
                    delay_s = await releases.not_found(
                        connection, work.want.memory, failure.message
                    )
            for claim in work.claims:
                await fail_attempt(
                    connection,
                    claim.item_id,
                    failure,
                    stages=[Stage.TICKETING],
                    fence=claim.fence,
                    policy=self._retries,
                    rng=self._rng,
                    actor=ACTOR,
                    delay_s=delay_s,
                )
            reached("direct.refused")
            await self._store.close_intent(connection, work.ticket_id)
        ATTEMPTS_FAILED.labels(failure.error_type).inc(len(work.claims))

    async def _asks_by_track(self, work: Work) -> bool:
        """Whether these are the rest of an album: what its releases lack may come alone."""
        album, count = work.want.album, len(work.items)
        if album is None or not 1 < count <= _REST_OF_AN_ALBUM * album.tracks:
            return False
        blocked = await self._store.blocked(work)
        if not all(each.hard.keys for each in blocked.values()):
            return False
        async with self._store.database.transaction() as connection:
            for claim in work.claims:
                reason = "no other release of the album: asks by track"
                await go_on(connection, claim, ask_next="track", reason=reason, actor=ACTOR)
            await self._store.close_intent(connection, work.ticket_id)
        return True

    async def _hand_back(self, work: Work, delay_s: float, reason: str) -> None:
        reached("direct.handing_back")
        async with self._store.database.transaction() as connection:
            for claim in work.claims:
                await hand_back(
                    connection, claim, Stage.QUEUED, delay_s=delay_s, reason=reason, actor=ACTOR
                )
