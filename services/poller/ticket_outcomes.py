"""Carrying out what was decided about a ticket: one transaction, and the calls around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import assert_never

import structlog

from services.poller.delivery_plan import ask
from services.poller.fallback import wait_together
from services.poller.items import detours, items_of
from services.poller.store import ACTOR, OpenTicket
from services.poller.stray_tickets import cancel
from services.poller.ticket_facts import Asked, TicketFacts
from services.poller.ticket_verdict import (
    Action,
    AskAgain,
    AskOtherKind,
    CancelAgain,
    Collect,
    Excused,
    Follow,
    GiveUp,
    LetGo,
    Move,
    NextCandidate,
    Process,
    Wait,
)
from shared.app import App
from shared.bus.subjects import Wake
from shared.crashpoints import reached
from shared.db import moves
from shared.db.bad_sources import block_source
from shared.db.pool import Connection
from shared.errors import AttemptFailed
from shared.metrics import ATTEMPTS_FAILED
from shared.states import REMOTE, Stage
from shared.torrentino.model import ENDED, RemoteTicket

log = structlog.get_logger()

# A detour waits no longer: what it waits for is the end of an outage.
_LONGEST_DETOUR_S = 3600.0

Woken = Collection[Wake]
_ENDED: Woken = frozenset[Wake]({"ticket"})
_COLLECTED: Woken = frozenset[Wake]({"fetch", "ticket"})


class TicketOutcomes:
    """Writes what becomes of a ticket and its items, and tells Torrentino."""

    def __init__(self, app: App, asked: Asked) -> None:
        self._app = app
        self._asked = asked
        self._store = asked.store
        # How often a blocked torrent was taken from a ticket; forgotten with the ticket.
        self.refusals: Counter[str] = Counter()

    async def carry_out(self, facts: TicketFacts, action: Action) -> Woken:
        """Do it; returns the kinds of work that follow from it.

        Raises:
            Unavailable: Torrentino, its torrent client or PostgreSQL is away.
        """
        match action:
            case LetGo():
                return await self._let_go(facts)
            case CancelAgain():
                await self._cancel(facts)
                return ()
        return await self._move(facts, action)

    async def _let_go(self, facts: TicketFacts) -> Woken:
        async with self._store.database.transaction() as connection:
            await self._store.close(connection, facts.ticket, facts.seen.remote)
        reached("poller.let_go")
        return _ENDED

    async def _cancel(self, facts: TicketFacts) -> None:
        """Cancel the ticket if it lives, and note whether it did."""
        ticket, remote = facts.ticket, facts.seen.remote
        alive_as = None
        if remote is not None and remote.state not in ENDED:
            alive_as = remote.state
            reached("poller.cancelling")
            await cancel(
                self._asked.tickets,
                remote,
                reason="no longer wanted",
                ticket_id=ticket.id,
            )
        await self._store.at_rest(ticket, alive_as=alive_as)
        reached("poller.rested")

    async def _move(self, facts: TicketFacts, move: Move) -> Woken:
        ticket, remote = facts.ticket, facts.seen.remote
        async with self._store.database.transaction() as connection:
            if remote is not None:
                shown = move.progress_pct if isinstance(move, Follow) else None
                idle_s = await self._store.observe(
                    connection,
                    ticket,
                    remote,
                    progress_pct=shown,
                    may_progress=self._asked.torrent_client.ok,
                )
                if idle_s is None:
                    return ()
                reached("poller.observed")
                if idle_s >= facts.stall_timeout_s:
                    move = await self._if_idle(connection, ticket, move)
            woken = await self._apply(connection, facts, move)
            reached("poller.applied")
        reached("poller.moved")
        if isinstance(move, NextCandidate):
            self.refusals[ticket.id] += 1
            await self._asked.blocked_torrents.refuse(ticket, move.info_hash)
        elif isinstance(move, Process) and woken is not None:
            return await self._process(facts, move)
        return woken or ()

    async def _if_idle(self, connection: Connection, ticket: OpenTicket, move: Move) -> Move:
        """What is done about a ticket that has shown the same for STALL_TIMEOUT_S."""
        if not isinstance(move, Follow | Wait):
            return move
        match move.if_idle:
            case Excused(orchestrator_stopped=stopped, client_away=away):
                log.warning(
                    "stall_excused",
                    ticket=ticket.torrentino_id,
                    orchestrator_stopped=stopped,
                    client_away=away,
                )
                await self._store.restart_stall_clock(connection, ticket)
            case GiveUp() as stalled:
                return stalled
        return move

    async def _process(self, facts: TicketFacts, plan: Process) -> Woken:
        reached("poller.processing")
        failure = await ask(self._asked.tickets.client, facts.ticket, plan)
        reached("poller.processed")
        if failure is None:
            return ()
        async with self._store.database.transaction() as connection:
            return await self._apply(connection, facts, GiveUp(failure=failure)) or ()

    async def _apply(self, connection: Connection, facts: TicketFacts, move: Move) -> Woken | None:
        """Write what becomes of ticket and items; None when another poller has done it."""
        ticket, remote = facts.ticket, facts.seen.remote
        match move:
            case Follow():
                await self._show(connection, ticket, remote, move)
            case Wait():
                log.warning("unknown_ticket_state", ticket=ticket.torrentino_id, remote=remote)
            case Collect():
                return await self._collect(connection, ticket, remote, move)
            case Process():
                return await self._note_processing(connection, facts, move)
            case NextCandidate(info_hash=info_hash):
                await self._asked.blocked_torrents.forget(connection, ticket)
                log.info("source_refused", ticket=ticket.torrentino_id, info_hash=info_hash)
            case AskAgain() | AskOtherKind() | GiveUp():
                return await self._end(connection, ticket, remote, move)
            case _:
                assert_never(move)
        return ()

    async def _show(
        self,
        connection: Connection,
        ticket: OpenTicket,
        remote: RemoteTicket | None,
        follow: Follow,
    ) -> None:
        reason = follow.reason or (f"Torrentino: {remote.state}" if remote else "")
        more = follow.reason is not None
        await moves.follow(connection, follow.stage, {ticket.id: reason}, actor=ACTOR, retell=more)

    async def _collect(
        self,
        connection: Connection,
        ticket: OpenTicket,
        remote: RemoteTicket | None,
        collect: Collect,
    ) -> Woken | None:
        self.refusals.pop(ticket.id, None)
        at = collect.at
        closed = await self._store.close(
            connection,
            ticket,
            remote,
            torrent_path=at.path if at.in_torrent else None,
            size_bytes=at.size_bytes,
        )
        if not closed:
            return None
        placed = "Torrentino has placed the file"
        reason = "the torrent is complete" if at.in_torrent else placed
        await moves.follow(connection, Stage.READY, {ticket.id: reason}, actor=ACTOR)
        return _COLLECTED

    async def _note_processing(
        self, connection: Connection, facts: TicketFacts, plan: Process
    ) -> Woken | None:
        if not await self._store.processing(connection, facts.ticket, facts.remote, plan):
            return None
        reason = f"Torrentino is told which {len(plan.files)} files of the torrent to place"
        await moves.follow(connection, Stage.PROCESSING, {facts.ticket.id: reason}, actor=ACTOR)
        return ()

    async def _end(
        self,
        connection: Connection,
        ticket: OpenTicket,
        remote: RemoteTicket | None,
        end: AskAgain | AskOtherKind | GiveUp,
    ) -> Woken:
        self.refusals.pop(ticket.id, None)
        if isinstance(end, AskOtherKind) or end.withdraw:
            await self._store.withdraw(connection, ticket)
        else:
            await self._store.close(connection, ticket, remote)
        match end:
            case AskAgain(reason=reason):
                await self._ask_again(connection, ticket, reason)
            case AskOtherKind():
                await self._ask_other_kind(connection, ticket, end)
            case GiveUp(failure=failure):
                await self._fail_items(connection, ticket, failure)
        return _ENDED

    async def _ask_again(self, connection: Connection, ticket: OpenTicket, reason: str) -> None:
        """Queue the items for another ticket; from MAX_RETRIES in a row on, each waits longer."""
        before = await detours(connection, ticket.id)
        beyond = max(0, before + 1 - self._app.retries.max_retries)
        delay_s = min(self._app.retries.delay_s(beyond), _LONGEST_DETOUR_S)
        if before:
            reason = f"{reason} ({before + 1} tickets in a row have led nowhere)"
        await moves.requeue(
            connection, {ticket.id: reason}, actor=ACTOR, delay_s=delay_s, detour=True
        )

    async def _ask_other_kind(
        self, connection: Connection, ticket: OpenTicket, other: AskOtherKind
    ) -> None:
        """Let the other kind of ticket serve the items; each asks alone for its track only once."""
        nothing = other.failure
        await moves.requeue(
            connection,
            {ticket.id: other.reason},
            actor=ACTOR,
            ask_next=other.ask_next,
            once=nothing is not None,
        )
        if nothing is not None:
            await self._fail_items(connection, ticket, nothing)

    async def _fail_items(
        self, connection: Connection, ticket: OpenTicket, failure: AttemptFailed
    ) -> None:
        item_ids = await items_of(connection, ticket.id)
        ended = await moves.fail(
            connection,
            item_ids,
            failure,
            stages=REMOTE,
            policy=self._app.retries,
            actor=ACTOR,
        )
        for item_id in ended:
            await block_source(connection, item_id, failure)
        ATTEMPTS_FAILED.labels(failure.error_type).inc(len(ended))
        grouping = self._app.settings.ticket_grouping
        await wait_together(connection, ticket, item_ids, failure, grouping=grouping)
