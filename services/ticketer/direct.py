"""The ticketer's part of the mode `direct`: search, choose a release, have its torrent added.

The chosen release is committed before it is added. The ticketer that finds an intent that was
begun looks for its torrent, and adds it again, which changes nothing where it is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from services.ticketer.adder import Adder
from services.ticketer.attempt import NoTurn, give_up_if_hopeless, hand_back_all
from services.ticketer.direct_claims import DirectClaims, Work
from services.ticketer.direct_store import DirectStore
from services.ticketer.intents import ACTOR
from services.ticketer.mode_choice import ModeChoice
from services.ticketer.release_choice import Candidate, Chooser, NothingSuitable
from shared.acquisition.direct import Direct
from shared.acquisition.protocol import ModeName
from shared.app import App
from shared.choosing.selection import has_all
from shared.crashpoints import reached
from shared.db import moves, releases
from shared.db.blocklist import OfTrack
from shared.db.claims import Claim
from shared.errors import AttemptFailed, Dependency, Unavailable
from shared.metrics import ATTEMPTS_FAILED
from shared.states import Stage

# While a call may still be at work, no other ticketer may look for its torrent.
UNSETTLED_S = 15.0
# Indexers that could not be asked may have it; not the next minute.
INDEXERS_FAILED_S = 3600.0
# Of its tracks: that much may be searched for one by one.
_REST_OF_AN_ALBUM = 0.5
# Releases that one turn tries to add.
_MOST_TRIED = 5
_LATER_S = 1.0
# What waits longer does not go before what was asked for meanwhile.
_LONG_WAIT_S = 60.0


@dataclass(kw_only=True)
class DirectAttempt:
    """The items to get one download for."""

    work: Work
    # The list that all attempts need was read.
    alone: bool = False

    @property
    def id(self) -> str:
        """Of the intent."""
        return self.work.ticket_id

    @property
    def claims(self) -> list[Claim]:
        """The proof that the items are ours."""
        return self.work.claims

    @property
    def unsettled_s(self) -> float:
        """Each of its calls may be at work."""
        return UNSETTLED_S

    @property
    def failures(self) -> int:
        """See `Attempt`."""
        return self.work.failures


class DirectStarter:
    """`Starter[DirectAttempt]`."""

    name = "direct ticketer"

    def __init__(
        self,
        app: App,
        mode: Direct,
        claims: DirectClaims,
        store: DirectStore,
        choice: ModeChoice,
        *,
        chooser: Chooser,
        adder: Adder,
    ) -> None:
        self.mode: ModeName = mode.name
        self.needs: Collection[Dependency] = mode.needs
        self.remote = mode
        self._claims = claims
        self.store = store
        self.choice = choice
        self._app = app
        self._chooser = chooser
        self._search = chooser.search
        self._adder = adder

    @property
    def unsettled_s(self) -> float:
        """As long as a call waits for its answer."""
        return UNSETTLED_S

    async def join(self) -> int:
        """0: an item takes no part in a download that is under way; it finds its torrent there."""
        return 0

    async def claim(self, limit: int) -> Sequence[DirectAttempt]:
        """Take items for at most `limit` downloads; what is new only where this is the mode."""
        batch = await self._claims.claim(
            limit,
            takes_new=await self.choice.mode() == self.mode,
            searcher_wait_s=self._search.wait_s(),
        )
        if batch:
            reached("direct.claimed")
        return [DirectAttempt(work=work) for work in batch]

    async def start(self, attempt: DirectAttempt) -> None:
        """Adopt the torrent of an earlier try, or choose a release and have it added."""
        work = attempt.work
        there = await self.remote.present()
        self._app.health.up("torrentino")
        self._app.health.up("torrent_client")
        attempt.alone = True
        if work.begun is not None:
            reached("direct.found")
            if await self._adder.resume(work, work.begun):
                await self._app.announcer.announce("poll")
                return
        else:
            give_up_if_hopeless(work.failures)
        brought = await self.store.brought(work.want)
        for _ in range(_MOST_TRIED):
            blocked = await self.store.blocked(work)
            candidates = await self._chooser.candidates(
                work, blocked=blocked, brought=brought, there=there
            )
            best = candidates[0]
            work = await self._leave_out(work, best, blocked)
            if await self._adder.add(work, best, there):
                await self._app.announcer.announce("poll")
                return
        raise NoTurn(_LATER_S, "five releases could not be added: tries the next ones")

    async def _leave_out(self, work: Work, best: Candidate, blocked: dict[str, OfTrack]) -> Work:
        """Hand back those of the items whose tracks this release is known not to bring."""
        without = [
            item for item in work.items if has_all([blocked[item.track.id].hard], best.release)
        ]
        if not without:
            return work
        reason = "looks for another release than the others of its album"
        await self.store.leave_out([item.claim for item in without], reason, actor=ACTOR)
        rest = tuple(item for item in work.items if item not in without)
        assert rest, "a release that is blocked for all is not chosen"
        return work.only(rest)

    async def fail(self, attempt: DirectAttempt, failure: AttemptFailed) -> None:
        """End the attempt of each item; nothing found is remembered, if every indexer was asked."""
        work = attempt.work
        if isinstance(failure, NothingSuitable) and await self._asks_by_track(work):
            return
        async with self.store.database.transaction() as connection:
            delay_s = None
            if isinstance(failure, NothingSuitable):
                if failure.failed:
                    delay_s = INDEXERS_FAILED_S
                else:
                    delay_s = await releases.not_found(
                        connection, work.want.memory, failure.message
                    )
            await moves.fail(
                connection,
                work.claims,
                failure,
                stages=[Stage.TICKETING],
                policy=self._app.retries,
                actor=ACTOR,
                delay_s=delay_s,
            )
            reached("direct.refused")
            await self.store.close_intent(connection, work.ticket_id, how="nothing found")
        ATTEMPTS_FAILED.labels(failure.error_type).inc(len(work.claims))

    async def _asks_by_track(self, work: Work) -> bool:
        """Whether these are the rest of an album: what its releases lack may come alone."""
        album, count = work.want.album, len(work.items)
        if album is None or not 1 < count <= _REST_OF_AN_ALBUM * album.tracks:
            return False
        blocked = await self.store.blocked(work)
        if not all(each.hard.keys for each in blocked.values()):
            return False
        async with self.store.database.transaction() as connection:
            await moves.hand_back(
                connection,
                work.claims,
                Stage.QUEUED,
                delay_s=0.0,
                ask_next="track",
                reason="no other release of the album: asks by track",
                actor=ACTOR,
            )
            await self.store.close_intent(connection, work.ticket_id, how="nothing found")
        return True

    async def hand_back(
        self, attempt: DirectAttempt, *, delay_s: float, reason: str, own_fault: bool = False
    ) -> None:
        """Queue the items again; those that wait for long without anything begun, in their order.

        An intent with failures of its own is kept all the same, for their count.
        """
        reached("direct.handing_back")
        async with self.store.database.transaction() as connection:
            await hand_back_all(
                connection, attempt, delay_s=delay_s, reason=reason, own_fault=own_fault
            )
            if delay_s >= _LONG_WAIT_S and not own_fault and not attempt.failures:
                await self.store.close_intent(connection, attempt.id, how="handed back")

    async def works(self, dependency: Dependency) -> bool:
        """See `Starter`."""
        return await self.remote.client.works(dependency)

    def delay_of(self, away: Unavailable) -> float | None:
        """An outage of the searcher does not concern what needs no search."""
        if away.dependency != "searcher":
            return None
        # It may have been met by a link that was to be added, of which the search knows nothing.
        if not self._search.wait_s():
            self._app.health.failed(away)
        return self._search.wait_s()
