"""The ticketer's part of the mode `tickets`: one ticket at Torrentino for each attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import structlog

from services.ticketer.attempt import give_up_if_hopeless, hand_back_all
from services.ticketer.intents import ACTOR
from services.ticketer.mode_choice import ModeChoice
from services.ticketer.store import Store, Work, close_intent
from shared.acquisition.protocol import Begun, Found, ModeName
from shared.acquisition.tickets import Tickets
from shared.app import App
from shared.crashpoints import reached
from shared.db import moves
from shared.db.albums import KnownAlbum
from shared.db.claims import Claim
from shared.db.pool import Connection
from shared.errors import AttemptFailed, Dependency, Unavailable
from shared.metrics import ATTEMPTS_FAILED, TICKETS_CREATED
from shared.states import Stage
from shared.torrentino.model import ExpectedTrack, TicketRequest

log = structlog.get_logger()

# Calls under way: the rest of what is in hand is ready for the next free call.
_AT_ONCE = 8
# Ours is 1 for the most urgent, Torrentino's is higher for the more urgent.
REMOTE_PRIORITY = {1: 300, 2: 200, 3: 100}
# A request whose answer never came may still be at work on the server for as long as we waited
# for it; only after that the list of tickets gives the final word.
_UNSETTLED_S = 15.0
# While a create may be under way no other ticketer may look for its ticket: the lease lasts as long
# as a call can, also where LEASE_S is shorter.
ASKING_S = 20.0
_MOST_LOGGED = 20


@dataclass(kw_only=True)
class TicketAttempt:
    """The items to get one ticket for."""

    work: Work
    # What the intents of its batch have started before, by their ids.
    finding: asyncio.Task[Mapping[str, Found]]
    asking: bool = False

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
        """0 as long as nothing is asked of Torrentino."""
        return _UNSETTLED_S if self.asking else 0.0

    @property
    def failures(self) -> int:
        """See `Attempt`."""
        return self.work.failures

    @property
    def alone(self) -> bool:
        """The lists that are read before serve all attempts of the batch."""
        return self.asking


class TicketStarter:
    """`Starter[TicketAttempt]`."""

    name = "ticketer"

    def __init__(self, app: App, mode: Tickets, store: Store, choice: ModeChoice) -> None:
        self.mode: ModeName = mode.name
        self.needs: Collection[Dependency] = mode.needs
        self.remote = mode
        self.store = store
        self.choice = choice
        self._app = app
        self._grouping = app.settings.ticket_grouping
        self._calls = asyncio.Semaphore(_AT_ONCE)

    @property
    def unsettled_s(self) -> float:
        """As long as a call waits for its answer."""
        return _UNSETTLED_S

    async def join(self) -> int:
        """Let items join the open ticket of their album."""
        joined = await self.store.join()
        if joined:
            reached("ticketer.joined")
        return joined

    async def claim(self, limit: int) -> Sequence[TicketAttempt]:
        """Take items for at most `limit` tickets; what is new only where tickets are the mode."""
        takes_new = await self.choice.mode() == self.mode
        batch = await self.store.claim(limit, takes_new=takes_new)
        if not batch:
            return []
        reached("ticketer.claimed")
        finding = asyncio.create_task(self._find_again(batch))
        finding.add_done_callback(_retrieved)
        return [TicketAttempt(work=work, finding=finding) for work in batch]

    async def _find_again(self, batch: Sequence[Work]) -> Mapping[str, Found]:
        there = await self.remote.present()
        found = await self.remote.find([_begun(work) for work in batch if work.resumed])
        # What is found was asked for before, and may have brought what is there by now.
        await self.store.list_before([w for w in batch if w.ticket_id not in found], there)
        reached("ticketer.listed")
        return found

    async def start(self, attempt: TicketAttempt) -> None:
        """Adopt the ticket of an earlier try, or create one."""
        found = (await asyncio.shield(attempt.finding)).get(attempt.id)
        async with self._calls:
            attempt.asking = True
            await self._create_or_adopt(attempt.work, found)

    async def _create_or_adopt(self, work: Work, found: Found | None) -> None:
        priority = REMOTE_PRIORITY[work.priority]
        if found is not None:
            how, torrentino_id = "found", found.remote_id
            extra = [_begun(work, torrentino_id=each) for each in found.extra]
            await self._cancel(extra, "a second ticket for the same path")
            reached("ticketer.found")
        else:
            give_up_if_hopeless(work.failures)
            reached("ticketer.posting")
            if not await self.store.keep(work, for_s=ASKING_S):
                log.warning("claim_lost_before_asking", ticket=work.ticket_id)
                return
            started = await self.remote.start(request_for(work, priority))
            how, torrentino_id = "created", started.remote_id
            reached("ticketer.posted")
        if not await self.store.record(work, torrentino_id=torrentino_id, priority=priority):
            log.warning("ticket_of_a_lost_claim", ticket=work.ticket_id, torrentino=torrentino_id)
            await self._take_back(work, torrentino_id)
            return
        reached("ticketer.recorded")
        TICKETS_CREATED.labels(how).inc()
        self._app.health.up("torrentino")
        await self._app.announcer.announce("poll")
        log.info(
            "ticket",
            item_ids=[claim.item_id for claim in work.claims[:_MOST_LOGGED]],
            items=len(work.claims),
            kind=work.kind,
            torrentino_ticket_id=torrentino_id,
            how=how,
        )

    async def _take_back(self, work: Work, torrentino_id: str) -> None:
        """Cancel a ticket of a lost claim, if its items have another one or have ended.

        Where that is not known yet, the ticketer that takes the items finds the ticket by its path.
        """
        if await self.store.superseded(work, torrentino_id=torrentino_id):
            late = _begun(work, torrentino_id=torrentino_id)
            await self._cancel([late], "its ticketer came too late")

    async def _cancel(self, tickets: Sequence[Begun], reason: str) -> None:
        """Cancel once; the sweep for strays ends what is left."""
        if tickets:
            await self.remote.give_up(tickets, reason=reason, with_data=False)

    async def fail(self, attempt: TicketAttempt, failure: AttemptFailed) -> None:
        """End the attempt of each item; what is refused for an album is asked for by its tracks."""
        work = attempt.work
        by_track = work.kind == "album" and self._grouping == "auto"
        async with self.store.database.transaction() as connection:
            ended = await self._end(connection, work.claims, failure, by_track=by_track)
            reached("ticketer.refused")
            if ended:
                # Otherwise another ticketer has the intent by now.
                await close_intent(connection, work.ticket_id)
        if not by_track:
            ATTEMPTS_FAILED.labels(failure.error_type).inc(len(work.claims))

    async def _end(
        self,
        connection: Connection,
        claims: Sequence[Claim],
        failure: AttemptFailed,
        *,
        by_track: bool,
    ) -> bool:
        """Whether any item was still held."""
        if by_track:
            moved = await moves.hand_back(
                connection,
                claims,
                Stage.QUEUED,
                delay_s=0.0,
                ask_next="track",
                reason=f"no ticket for the album: {failure.message}",
                actor=ACTOR,
            )
            return bool(moved)
        ended = await moves.fail(
            connection,
            claims,
            failure,
            stages=[Stage.TICKETING],
            policy=self._app.retries,
            actor=ACTOR,
        )
        return bool(ended)

    async def hand_back(
        self, attempt: TicketAttempt, *, delay_s: float, reason: str, own_fault: bool = False
    ) -> None:
        """Queue the items again."""
        reached("ticketer.handing_back")
        async with self.store.database.transaction() as connection:
            await hand_back_all(
                connection, attempt, delay_s=delay_s, reason=reason, own_fault=own_fault
            )

    async def works(self, dependency: Dependency) -> bool:
        """See `Starter`."""
        return await self.remote.client.works(dependency)

    def delay_of(self, away: Unavailable) -> float | None:  # noqa: ARG002 all tickets wait for it
        """None: without Torrentino no ticket can be created."""
        return None


def _retrieved(finding: asyncio.Task[Mapping[str, Found]]) -> None:
    """Each attempt gets its error; where all of them were cancelled, none does."""
    if not finding.cancelled():
        finding.exception()


def _begun(work: Work, *, torrentino_id: str | None = None) -> Begun:
    return Begun(id=work.ticket_id, remote_id=torrentino_id, folder=work.dest_path)


def request_for(work: Work, priority: int) -> TicketRequest:
    """The ticket: artist and title as description, for only that is searched by."""
    if work.album is None:
        (item,) = work.items
        artist, title, tracks = item.track.artist, item.track.title, None
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
