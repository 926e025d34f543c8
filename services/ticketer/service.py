"""The ticketer: from due items to a ticket at Torrentino, exactly one for each attempt.

Torrentino cannot deduplicate, so the intent, with a `dest_path` of its own, is in the database
before the call. Whatever happens to the call, the next ticketer that takes the item looks for a
ticket with that path before it asks for one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import structlog

from services.ticketer.base import InHand
from services.ticketer.groups import Grouping
from services.ticketer.store import Store, Work, close_intent
from shared.backoff import RetryPolicy
from shared.bus.nats import Bus
from shared.crashpoints import reached
from shared.db.albums import KnownAlbum
from shared.db.items import Claim, fail_attempt, go_on, hand_back
from shared.db.pool import Connection, Database
from shared.errors import AttemptFailed, OutcomeUnknown, Refused, Unavailable
from shared.health import Health
from shared.leases import LeaseKeeper
from shared.metrics import ATTEMPTS_FAILED, TICKETS_CREATED
from shared.states import Stage
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import (
    ENDED,
    ExpectedTrack,
    RemoteState,
    RemoteTicket,
    TicketRequest,
)

log = structlog.get_logger()

ACTOR = "ticketer"
# Calls under way: the rest of what is in hand is ready for the next free call.
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
_MOST_LOGGED = 20
_LEADS_NOWHERE = ENDED - {RemoteState.COMPLETED}

Found = dict[str, list[RemoteTicket]]


class Ticketer(InHand):
    """Gets the tickets of all due items, some at once; `run_once` fills the free places."""

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
        grouping: Grouping,
        sweep_interval_s: float,
    ) -> None:
        super().__init__(
            client=client,
            leases=leases,
            relay_wake=relay_wake,
            health=health,
            rng=rng,
            needs=["torrentino"],
            sweep_interval_s=sweep_interval_s,
        )
        self._database = database
        self._store = store
        self._bus = bus
        self._retries = retries
        self._rng = rng
        self._grouping = grouping
        self._calls = asyncio.Semaphore(_AT_ONCE)

    async def run_once(self) -> int:
        """Claim items for as many tickets as there are free places; returns how many items.

        Those that can join a ticket do so, which takes no place.

        Raises:
            Unavailable: Torrentino, its client or PostgreSQL; the items are handed back, and
                no attempt is used up.
        """
        await self._look_first()
        joined = await self._store.join()
        if joined:
            reached("ticketer.joined")
            self._relay_wake.set()
            await self._bus.wake("poll")
        free = self._free()
        if free <= 0:
            return joined
        batch = await self._store.claim(free)
        if not batch:
            return joined
        reached("ticketer.claimed")
        self._relay_wake.set()
        finding = asyncio.create_task(self._find_again(batch))
        finding.add_done_callback(_retrieved)
        for work in batch:
            self._begin(self._ticket(work, finding), name=f"ticket {work.ticket_id}")
        return joined + sum(len(work.wanted) for work in batch)

    async def _find_again(self, batch: Sequence[Work]) -> Found:
        # A ticket would search every indexer before it finds that it cannot add what it found.
        await self._client.client_answers()
        resumed = [work.dest_path for work in batch if work.resumed]
        return await self._client.find_by_dest_paths(resumed)

    async def _ticket(self, work: Work, finding: asyncio.Task[Found]) -> None:
        cut_s = 0.0
        # The leases are kept from here on, also while the items wait for the others.
        with self._holding(work.claims):
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
            except Unavailable as held:
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
                log.warning("claim_lost_before_asking", ticket=work.ticket_id)
                return
            remote = await self._client.create(request_for(work, priority))
            reached("ticketer.posted")
        recorded = await self._store.record(work, torrentino_id=remote.id, priority=priority)
        if not recorded:
            log.warning("ticket_of_a_lost_claim", ticket=work.ticket_id, torrentino=remote.id)
            await self._take_back(work, remote)
            return
        reached("ticketer.recorded")
        TICKETS_CREATED.labels(how).inc()
        self._health.up("torrentino")
        await self._bus.wake("poll")
        log.info(
            "ticket",
            item_ids=[claim.item_id for claim in work.claims[:_MOST_LOGGED]],
            items=len(work.claims),
            kind=work.kind,
            torrentino_ticket_id=remote.id,
            how=how,
        )

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
        """End the attempt of each item; what an album was refused for may do for its tracks."""
        goes_on = work.kind == "album" and self._grouping == "auto"
        async with self._database.transaction() as connection:
            ended = [await self._end(connection, c, failure, goes_on=goes_on) for c in work.claims]
            reached("ticketer.refused")
            if any(ended):
                # Otherwise it is somebody else's intent by now.
                await close_intent(connection, work.ticket_id)
        if not goes_on:
            ATTEMPTS_FAILED.labels(failure.error_type).inc(len(work.claims))

    async def _end(
        self, connection: Connection, claim: Claim, failure: AttemptFailed, *, goes_on: bool
    ) -> bool:
        if goes_on:
            reason = f"no ticket for the album: {failure.message}"
            return await go_on(connection, claim, ask_next="track", reason=reason, actor=ACTOR)
        ended = await fail_attempt(
            connection,
            claim.item_id,
            failure,
            stages=[Stage.TICKETING],
            fence=claim.fence,
            policy=self._retries,
            rng=self._rng,
            actor=ACTOR,
        )
        return ended is not None

    async def _hand_back(self, work: Work, delay_s: float, reason: str) -> None:
        reached("ticketer.handing_back")
        async with self._database.transaction() as connection:
            for claim in work.claims:
                await hand_back(
                    connection, claim, Stage.QUEUED, delay_s=delay_s, reason=reason, actor=ACTOR
                )


def _retrieved(finding: asyncio.Task[Found]) -> None:
    """Whoever waits for it gets its error; when all of them were cancelled nobody does."""
    if not finding.cancelled():
        finding.exception()


def request_for(work: Work, priority: int) -> TicketRequest:
    """The ticket: artist and title as description, for only that is searched by."""
    if work.album is None:
        (wanted,) = work.wanted
        artist, title, tracks = wanted.artist, wanted.title, None
    else:
        artist, title, tracks = work.album.artist, work.album.name, _expected(work.album)
    return TicketRequest(
        description=f"{artist} {title}" if artist else title,
        artist=artist,
        title=title,
        dest_path=work.dest_path,
        priority=priority,
        tracks=tracks,
    )


def _expected(album: KnownAlbum) -> tuple[ExpectedTrack, ...]:
    """Its whole tracklist, wanted or not: a torrent is judged by how much of it it has."""
    return tuple(
        ExpectedTrack(
            number=track.number or place,
            title=track.title,
            disc=track.disc,
            duration_ms=track.duration_ms,
        )
        for place, track in enumerate(album.tracks, start=1)
    )
