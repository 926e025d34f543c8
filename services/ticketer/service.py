"""The ticketer: from a due item to a ticket at Torrentino, exactly one for each attempt.

Torrentino cannot deduplicate, so the intent, with a `dest_path` of its own, is in the database
before the call. Whatever happens to the call, the next ticketer that takes the item looks for a
ticket with that path before it asks for one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import structlog

from services.ticketer.store import Store, Work, close_intent
from shared.backoff import RetryPolicy
from shared.bus.nats import Bus
from shared.crashpoints import reached
from shared.db.items import fail_attempt, hand_back
from shared.db.pool import Database
from shared.errors import AttemptFailed, Hold, OutcomeUnknown, Refused
from shared.health import Health
from shared.leases import LeaseKeeper
from shared.metrics import ATTEMPTS_FAILED, TICKETS_CREATED
from shared.runtime import Loop, drain
from shared.states import Stage
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import ENDED, RemoteState, RemoteTicket, TicketRequest

log = structlog.get_logger()

ACTOR = "ticketer"
# Items in hand, and calls under way: the rest is ready for the next free call.
_PLACES = 16
_AT_ONCE = 8
# Ours is 1 for the most urgent, Torrentino's is higher for the more urgent.
REMOTE_PRIORITY = {1: 300, 2: 200, 3: 100}
# A request whose answer never came may still be at work on the server for as long as we waited
# for it; only after that does a look at the list give the final word.
_UNSETTLED_S = 15.0
_SETTLED_S = 1.0
# While we may still be asking nobody else may begin to look: the lease lasts as long as a call can,
# also where LEASE_S is shorter.
_ASKING_S = 20.0
_LEADS_NOWHERE = ENDED - {RemoteState.COMPLETED}

Found = dict[str, list[RemoteTicket]]


class Ticketer:
    """Gets a ticket for each due item, some at once; `run_once` fills the free places."""

    name = ACTOR

    def __init__(
        self,
        *,
        database: Database,
        store: Store,
        client: TorrentinoClient,
        leases: LeaseKeeper,
        bus: Bus,
        relay_wake: asyncio.Event,
        health: Health,
        retries: RetryPolicy,
        rng: random.Random,
        sweep_interval_s: float,
    ) -> None:
        self._database = database
        self._store = store
        self._client = client
        self._leases = leases
        self._bus = bus
        self._relay_wake = relay_wake
        self._health = health
        self._retries = retries
        self._rng = rng
        self._calls = asyncio.Semaphore(_AT_ONCE)
        self._working: set[asyncio.Task[None]] = set()
        self._failure: Exception | None = None
        self._torrentino = health.breaker("torrentino")
        self.loop = Loop(
            self.name,
            self.run_once,
            interval_s=sweep_interval_s,
            health=health,
            rng=rng,
            needs=["torrentino"],
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Claim until the stop, then let what is in hand end; cancelled, hand it back."""
        await drain(self.loop, self._working, stop)

    async def run_once(self) -> int:
        """Claim as many items as there are free places; returns how many.

        Raises:
            Hold: Torrentino or PostgreSQL is away; what it met is handed back, unburnt.
        """
        failure, self._failure = self._failure, None
        if failure is not None and self._health.is_news(failure):
            raise failure
        if not self._torrentino.ok:
            # Asked before anything is claimed: an outage must not fill the items' histories.
            await self._client.health()
            self._health.up("torrentino")
        free = self._torrentino.allowance(_PLACES) - len(self._working)
        if free <= 0:
            return 0
        batch = await self._store.claim(free)
        if not batch:
            return 0
        reached("ticketer.claimed")
        self._relay_wake.set()
        finding = asyncio.create_task(self._find_again(batch))
        finding.add_done_callback(_retrieved)
        for work in batch:
            task = asyncio.create_task(
                self._ticket(work, finding), name=f"ticket {work.claim.item_id}"
            )
            self._working.add(task)
            task.add_done_callback(self._done)
        return len(batch)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self.loop.wake.set()
        self._relay_wake.set()
        # A cancelled one lost its lease; that is somebody else's item now.
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._failure = error

    async def _find_again(self, batch: Sequence[Work]) -> Found:
        resumed = [work.dest_path for work in batch if work.resumed]
        return await self._client.find_by_dest_paths(resumed)

    async def _ticket(self, work: Work, finding: asyncio.Task[Found]) -> None:
        cut_s = 0.0
        # The lease is kept from here on, also while the item waits for the others.
        with self._leases.holding(work.claim):
            try:
                found = await asyncio.shield(finding)
                async with self._calls:
                    # Cut short from here on, a request may be left at work on the server.
                    cut_s = _UNSETTLED_S
                    await self._create_or_adopt(work, found.get(work.dest_path, []))
            except OutcomeUnknown as unknown:
                delay_s = _SETTLED_S if unknown.settled else _UNSETTLED_S
                await self._hand_back(work, delay_s, f"outcome unknown: {unknown}")
            except AttemptFailed as failure:
                await self._fail(work, failure)
            except Hold as held:
                await self._hand_back(work, 0.0, str(held))
                raise
            except asyncio.CancelledError as reason:
                await asyncio.shield(self._hand_back(work, cut_s, str(reason) or "stopping"))
                raise

    async def _create_or_adopt(self, work: Work, found: Sequence[RemoteTicket]) -> None:
        priority = REMOTE_PRIORITY[work.priority]
        how = "found" if found else "created"
        if found:
            remote = await self._keep_one(found)
            reached("ticketer.found")
        else:
            reached("ticketer.posting")
            if not await self._store.keep(work, for_s=_ASKING_S):
                log.warning("claim_lost_before_asking", item_id=work.claim.item_id)
                return
            remote = await self._client.create(request_for(work, priority))
            reached("ticketer.posted")
        recorded = await self._store.record(work, torrentino_id=remote.id, priority=priority)
        if not recorded:
            log.warning("ticket_of_a_lost_claim", item_id=work.claim.item_id, ticket=remote.id)
            await self._take_back(work, remote)
            return
        reached("ticketer.recorded")
        TICKETS_CREATED.labels(how).inc()
        self._health.up("torrentino")
        await self._bus.wake("poll")
        log.info("ticket", item_id=work.claim.item_id, torrentino_ticket_id=remote.id, how=how)

    async def _take_back(self, work: Work, remote: RemoteTicket) -> None:
        """Cancel a ticket of a lost claim, if its item goes on with another one or has ended.

        Where that is not known yet, who holds the item finds this ticket by its path.
        """
        if not await self._store.superseded(work, torrentino_id=remote.id):
            return
        try:
            await self._client.cancel(remote.id, reason="its ticketer came too late")
        except (OutcomeUnknown, Refused) as error:
            # The look for strays ends it.
            log.info("cancel_unsettled", ticket=remote.id, detail=str(error))

    async def _keep_one(self, found: Sequence[RemoteTicket]) -> RemoteTicket:
        # A late creation can leave two with one path; both would write to the same folder.
        kept = min(found, key=lambda remote: remote.state in _LEADS_NOWHERE)
        for extra in found:
            if extra is not kept and extra.state not in ENDED:
                await self._client.cancel(extra.id, reason="a second ticket for the same path")
        return kept

    async def _fail(self, work: Work, failure: AttemptFailed) -> None:
        async with self._database.transaction() as connection:
            ended = await fail_attempt(
                connection,
                work.claim.item_id,
                failure,
                stages=[Stage.TICKETING],
                fence=work.claim.fence,
                policy=self._retries,
                rng=self._rng,
                actor=ACTOR,
            )
            reached("ticketer.refused")
            if ended is not None:
                # Otherwise it is somebody else's intent by now.
                await close_intent(connection, work.ticket_id)
        ATTEMPTS_FAILED.labels(failure.error_type).inc()

    async def _hand_back(self, work: Work, delay_s: float, reason: str) -> None:
        reached("ticketer.handing_back")
        async with self._database.connection() as connection:
            await hand_back(
                connection, work.claim, Stage.QUEUED, delay_s=delay_s, reason=reason, actor=ACTOR
            )


def _retrieved(finding: asyncio.Task[Found]) -> None:
    """Whoever waits for it gets its error; when all of them were cancelled nobody does."""
    if not finding.cancelled():
        finding.exception()


def request_for(work: Work, priority: int) -> TicketRequest:
    """The ticket for one track: artist and title as description, for only that is searched by."""
    words = [work.main_artist, work.track_name] if work.main_artist else [work.track_name]
    return TicketRequest(
        description=" ".join(words),
        artist=work.main_artist,
        title=work.track_name,
        dest_path=work.dest_path,
        priority=priority,
    )
