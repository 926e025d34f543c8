"""The poller's part of the mode `tickets`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from services.poller.store import OpenTicket
from services.poller.ticket_decision import decide, ending_of
from services.poller.ticket_facts import Asked, AtWork, TicketFacts
from services.poller.ticket_outcomes import TicketOutcomes
from shared.acquisition.protocol import ModeName, Seen
from shared.app import App
from shared.bus.subjects import Wake
from shared.crashpoints import reached
from shared.errors import Dependency, Unavailable
from shared.metrics import TICKETS_POLLED
from shared.torrentino.model import RemoteState, RemoteTicket


class TicketFollower:
    """`Follower[OpenTicket, Seen[RemoteTicket]]`."""

    name = "poller"

    def __init__(self, app: App, asked: Asked) -> None:
        self.mode: ModeName = asked.tickets.name
        self.needs: Collection[Dependency] = asked.tickets.needs
        self.remote = asked.tickets
        self.blocked_torrents = asked.blocked_torrents
        self._asked = asked
        self._store = asked.store
        self._outcomes = TicketOutcomes(app, asked)
        self._health = app.health
        self._torrentino = app.health.breaker("torrentino")
        self._at_work = AtWork(asked.tickets.client)

    async def prepare(self) -> None:
        """Return when Torrentino answers; blocked torrents are removed first, if its client does.

        Most tickets do without the torrent client.
        """
        if not self._torrentino.ok:
            await self.remote.client.health()
            self._health.up("torrentino")
        if await self._asked.torrent_client.answers():
            try:
                await self.blocked_torrents.remove_all()
            except Unavailable as away:
                if not self._asked.torrent_client.is_away(away):
                    raise

    async def claim(self, limit: int) -> Sequence[OpenTicket]:
        """Take the tickets that are due."""
        due = await self._store.claim(limit=limit)
        if due:
            reached("poller.claimed")
        return due

    async def read(self, rows: Sequence[OpenTicket]) -> Mapping[str, Seen[RemoteTicket]]:
        """Read these tickets; what Torrentino works on is asked for after that, if at all."""
        seen = await self.remote.follow([ticket.begun for ticket in rows])
        reached("poller.read")
        self._at_work = AtWork(self.remote.client)
        return seen

    async def act(self, row: OpenTicket, seen: Seen[RemoteTicket]) -> Collection[Wake]:
        """Take the first answer of the list of questions, and carry it out."""
        if not row.withdrawing:
            TICKETS_POLLED.labels(_label(seen)).inc()
        if seen.fault is not None:
            raise seen.fault
        refusals = self._outcomes.refusals[row.id]
        facts = TicketFacts(row, seen, self._asked, self._at_work, refusals=refusals)
        return await self._outcomes.carry_out(facts, await decide(facts))

    async def put_off(self, rows: Collection[OpenTicket], *, delay_s: float) -> None:
        """Make these due later."""
        await self._store.put_off(rows, delay_s=delay_s)

    async def is_at_fault(self, away: Unavailable) -> bool:
        """See `Follower`. The torrent client's outage is noted, and most tickets do without it."""
        works = await self.remote.client.works(away.dependency)
        return works or self._asked.torrent_client.is_away(away)

    async def failed(
        self, row: OpenTicket, seen: Seen[RemoteTicket], away: Unavailable
    ) -> Collection[Wake]:
        """See `Follower`. After STALL_TIMEOUT_S without progress the ticket is given up."""
        if not self._asked.torrent_client.ok and away.dependency == "torrent_client":
            await self._store.put_off([row], delay_s=self._asked.settings.poll_interval_s)
            return ()
        refusals = self._outcomes.refusals[row.id]
        facts = TicketFacts(row, seen, self._asked, self._at_work, refusals=refusals)
        ending = ending_of(facts, away)
        if ending is not None:
            return await self._outcomes.carry_out(facts, ending)
        await self._store.failed(row, reason=str(away))
        return ()


def _label(seen: Seen[RemoteTicket]) -> str:
    if seen.remote is None:
        return seen.phase
    known: Sequence[str] = [state.value for state in RemoteState]
    return seen.remote.state if seen.remote.state in known else "unknown"
