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
from shared.db.items import fail_attempt, hand_back
from shared.db.pool import Database
from shared.errors import AttemptFailed, Hold, OutcomeUnknown
from shared.health import Health
from shared.leases import LeaseKeeper
from shared.metrics import ATTEMPTS_FAILED, TICKETS_CREATED
from shared.states import Stage
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import ENDED, RemoteState, RemoteTicket, TicketRequest

log = structlog.get_logger()

ACTOR = "ticketer"
_BATCH = 16
_AT_ONCE = 8
# Ours is 1 for the most urgent, Torrentino's is higher for the more urgent.
REMOTE_PRIORITY = {1: 300, 2: 200, 3: 100}
# A request whose answer never came may still be at work on the server for as long as we waited
# for it; only after that does a look at the list give the final word.
_UNSETTLED_S = 15.0
_SETTLED_S = 1.0
_LEADS_NOWHERE = ENDED - {RemoteState.COMPLETED}

Found = dict[str, list[RemoteTicket]]


class Ticketer:
    """Claims due items in batches and gets a ticket for each."""

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
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._torrentino_away = False

    async def run_once(self) -> int:
        """Ticket one batch; returns how many items it took.

        Raises:
            Hold: Torrentino or PostgreSQL is away; what was claimed is handed back, unburnt.
        """
        if self._torrentino_away:
            # Asked before anything is claimed: an outage must not fill the items' histories.
            await self._client.health()
            self._torrentino_away = False
            self._health.up("torrentino")
        batch = await self._store.claim(_BATCH)
        if not batch:
            return 0
        self._relay_wake.set()
        results = await self._ticket_all(batch)
        self._relay_wake.set()
        await self._bus.wake("poll")
        # A cancelled child lost its lease; that is somebody else's item now.
        failures = [result for result in results if isinstance(result, Exception)]
        self._torrentino_away = any(
            isinstance(failure, Hold) and failure.dependency == "torrentino" for failure in failures
        )
        if failures:
            raise failures[0]
        self._health.up("torrentino")
        return len(batch)

    async def _ticket_all(self, batch: Sequence[Work]) -> list[BaseException | None]:
        finding = asyncio.create_task(self._find_again(batch))
        try:
            return await asyncio.gather(
                *(self._ticket(work, finding) for work in batch), return_exceptions=True
            )
        finally:
            finding.cancel()

    async def _find_again(self, batch: Sequence[Work]) -> Found:
        resumed = [work.dest_path for work in batch if work.resumed]
        return await self._client.find_by_dest_paths(resumed)

    async def _ticket(self, work: Work, finding: asyncio.Task[Found]) -> None:
        # The lease is kept from here on, also while the item waits for the others.
        with self._leases.holding(work.claim):
            try:
                found = await asyncio.shield(finding)
                async with self._places:
                    await self._create_or_adopt(work, found.get(work.dest_path, []))
            except OutcomeUnknown as unknown:
                delay_s = _SETTLED_S if unknown.settled else _UNSETTLED_S
                await self._hand_back(work, delay_s, f"outcome unknown: {unknown}")
            except AttemptFailed as failure:
                await self._fail(work, failure)
            except (Hold, asyncio.CancelledError) as reason:
                await asyncio.shield(self._hand_back(work, 0.0, str(reason) or "stopping"))
                raise

    async def _create_or_adopt(self, work: Work, found: Sequence[RemoteTicket]) -> None:
        priority = REMOTE_PRIORITY[work.priority]
        how = "found" if found else "created"
        if found:
            remote = await self._keep_one(found)
        else:
            remote = await self._client.create(request_for(work, priority))
        recorded = await self._store.record(work, torrentino_id=remote.id, priority=priority)
        if not recorded:
            log.warning("ticket_of_a_lost_claim", item_id=work.claim.item_id, ticket=remote.id)
            return
        TICKETS_CREATED.labels(how).inc()
        log.info("ticket", item_id=work.claim.item_id, torrentino_ticket_id=remote.id, how=how)

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
            if ended is not None:
                # Otherwise it is somebody else's intent by now.
                await close_intent(connection, work.ticket_id)
        ATTEMPTS_FAILED.labels(failure.error_type).inc()

    async def _hand_back(self, work: Work, delay_s: float, reason: str) -> None:
        async with self._database.connection() as connection:
            await hand_back(
                connection, work.claim, Stage.QUEUED, delay_s=delay_s, reason=reason, actor=ACTOR
            )


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
