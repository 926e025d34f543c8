"""The poller: follows open tickets until Torrentino has ended each of them.

Polling is the truth, the WebSocket only says which ticket to look at first.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import assert_never

import structlog

from services.poller.delivery_plan import Gatherer, is_process_job
from services.poller.fallback import OtherKind
from services.poller.lost_jobs import AtWork, stranded
from services.poller.moves import ask_again, detours, go_on, items_of, move_items
from services.poller.remote_tickets import Reader
from services.poller.stall_detector import Stalls
from services.poller.store import ACTOR, OpenTicket, Store
from services.poller.ticket_cancellation import Withdrawals
from services.poller.torrent_client import TorrentClient
from services.poller.torrent_removal import Sources
from services.poller.verdicts import (
    GONE,
    Action,
    AskAgain,
    Collect,
    Follow,
    Gather,
    GiveUp,
    GoOn,
    NextSource,
    Process,
    Wait,
    action_for,
    distrusted,
    only_bad_sources,
    refusal_of,
    without_trackers,
)
from shared.backoff import RetryPolicy
from shared.bus.nats import Bus
from shared.crashpoints import reached
from shared.db.bad_sources import block_source
from shared.db.items import fail_attempt
from shared.db.pool import Connection
from shared.errors import AttemptFailed, DependencyDown, Unavailable
from shared.health import Health
from shared.metrics import ATTEMPTS_FAILED, TICKETS_POLLED
from shared.states import REMOTE, Stage
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import RemoteState, RemoteTicket

log = structlog.get_logger()

# Tickets to look at in one run.
_MOST = 500
# A detour waits no longer: what it waits for is the end of an outage.
_LONGEST_DETOUR_S = 3600.0
# Five candidates in three rounds are all that Torrentino tries.
_MOST_REFUSALS = 15


class Poller:
    """Looks at the tickets that are due, and moves their items on."""

    def __init__(
        self,
        *,
        store: Store,
        client: TorrentinoClient,
        reader: Reader,
        sources: Sources,
        withdrawals: Withdrawals,
        gatherer: Gatherer,
        bus: Bus,
        relay_wake: asyncio.Event,
        health: Health,
        retries: RetryPolicy,
        rng: random.Random,
        other_kind: OtherKind,
        poll_interval_s: float,
        stall_timeout_s: float,
    ) -> None:
        self._store = store
        self._client = client
        self._reader = reader
        self._sources = sources
        self._withdrawals = withdrawals
        self._gatherer = gatherer
        self._other_kind = other_kind
        self._bus = bus
        self._relay_wake = relay_wake
        self._health = health
        self._torrentino = health.breaker("torrentino")
        self._torrent_client = TorrentClient(client, health)
        self._stalls = Stalls(store, self._torrent_client, timeout_s=stall_timeout_s)
        self._retries = retries
        self._rng = rng
        self._poll_interval_s = poll_interval_s
        self._stall_timeout_s = stall_timeout_s
        self._woken: Counter[str] = Counter()
        self._at_work = AtWork(client)
        # How often a blocked torrent was taken from a ticket; forgotten with the ticket.
        self._refused: Counter[str] = Counter()

    async def run_once(self) -> int:
        """Look at every ticket that is due; returns how many changed what their items do.

        Raises:
            Unavailable: Torrentino or PostgreSQL is away; the tickets stay as they were.
        """
        if not self._torrentino.ok:
            await self._client.health()
            self._health.up("torrentino")
        if await self._torrent_client.answers():
            await self._remove_bad()
        recovering = not self._torrentino.closed
        due = await self._store.claim(limit=self._torrentino.allowance(_MOST))
        if not due:
            return 0
        reached("poller.claimed")
        try:
            seen = await self._reader.read([ticket for ticket in due if ticket.torrentino_id])
        except Unavailable:
            await self._store.put_off(due, delay_s=self._poll_interval_s)
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._store.put_off(due, delay_s=0))
            raise
        self._health.up("torrentino")
        reached("poller.read")
        self._woken.clear()
        self._at_work = AtWork(self._client)
        try:
            await self._look_at_all(due, seen)
        finally:
            await self._wake_others()
        # What is due again at once is for the next beat, not for this one.
        return len(due) if recovering else 0

    async def _look_at_all(
        self, due: Sequence[OpenTicket], seen: dict[str, RemoteTicket | None]
    ) -> None:
        for place, ticket in enumerate(due):
            try:
                await self._look(ticket, seen)
            except Unavailable as held:
                if self._torrent_client.is_away(held):
                    # Most tickets do without it just now.
                    await self._store.put_off([ticket], delay_s=self._poll_interval_s)
                    continue
                await self._store.put_off(due[place:], delay_s=self._poll_interval_s)
                raise
            except asyncio.CancelledError:
                await asyncio.shield(self._store.put_off(due[place:], delay_s=0))
                raise
            except Exception:
                # One ticket that we cannot cope with must not keep the others from being seen.
                log.exception("look_failed", ticket=ticket.id, torrentino=ticket.torrentino_id)

    async def _remove_bad(self) -> None:
        try:
            await self._sources.remove_bad()
        except DependencyDown as held:
            if not self._torrent_client.is_away(held):
                raise

    async def _wake_others(self) -> None:
        self._relay_wake.set()
        if self._woken["fetch"]:
            await self._bus.wake("fetch")
        if self._woken["ticket"]:
            await self._bus.wake("ticket")

    async def _look(self, ticket: OpenTicket, seen: dict[str, RemoteTicket | None]) -> None:
        if ticket.withdrawing:
            remote = seen.get(ticket.torrentino_id or "")
            if await self._withdrawals.look(ticket, remote, self._at_work):
                self._woken.update(["ticket"])
            return
        assert ticket.torrentino_id is not None, "an open ticket has Torrentino's id"
        remote = seen[ticket.torrentino_id]
        TICKETS_POLLED.labels("gone" if remote is None else _label(remote)).inc()
        action = GONE if remote is None else await self._action(ticket, remote)
        stopped = await self._stalls.is_stopped(ticket, self._at_work)
        async with self._store.database.transaction() as connection:
            if remote is not None:
                told = action.progress_pct if isinstance(action, Follow) else None
                idle_s = await self._store.observe(connection, ticket, remote, progress_pct=told)
                if idle_s is None:
                    return
                reached("poller.observed")
                if self._stalls.is_due(idle_s):
                    stalled = await self._stalls.end_of(connection, ticket, action, stopped=stopped)
                    action = stalled or action
            applied = await self._apply(connection, ticket, remote, action)
            reached("poller.applied")
        reached("poller.moved")
        match action:
            case NextSource(info_hash=info_hash):
                self._refused[ticket.id] += 1
                await self._sources.refuse(ticket, info_hash)
            case Process() if applied:
                await self._process(ticket, remote, action)

    async def _action(self, ticket: OpenTicket, remote: RemoteTicket) -> Action:
        """What to do about the ticket; asks Torrentino more where its state does not say it."""
        refusal = refusal_of(remote, seen=ticket.info_hash, blocked=ticket.blocked)
        if refusal is not None:
            return await self._refusal(ticket, refusal)
        lost = await stranded(
            self._client, self._at_work, ticket, remote, stall_timeout_s=self._stall_timeout_s
        )
        if lost is not None:
            return (
                await self._gatherer.again(ticket, lost) if is_process_job(ticket, remote) else lost
            )
        doubt = distrusted(remote) if ticket.distrusted or remote.empty_hash else None
        action = doubt or action_for(remote)
        match action:
            case Collect():
                return await self._gatherer.decide(ticket, remote, None)
            case Gather(failure=failure):
                return await self._gatherer.decide(ticket, remote, failure)
        if doubt:
            return action
        idle_s = (ticket.now - ticket.progressed_at).total_seconds()
        same = ticket.remote_state == remote.state
        told = without_trackers(remote, idle_s=idle_s if same else 0.0)
        return told or await self._other_kind.instead_of(ticket, remote) or action

    async def _refusal(
        self, ticket: OpenTicket, refusal: GiveUp | NextSource
    ) -> GiveUp | NextSource:
        if isinstance(refusal, GiveUp):
            return refusal
        # A torrent that others need, or that goes on seeding, cannot be taken from this ticket.
        removable = await self._sources.may_refuse(refusal.info_hash, ticket=ticket)
        if removable and self._refused[ticket.id] < _MOST_REFUSALS:
            return refusal
        return only_bad_sources(ticket.blocked, withdraw=True)

    async def _process(
        self, ticket: OpenTicket, remote: RemoteTicket | None, plan: Process
    ) -> None:
        reached("poller.processing")
        failure = await self._gatherer.ask(ticket, plan)
        reached("poller.processed")
        if failure is not None:
            async with self._store.database.transaction() as connection:
                await self._apply(connection, ticket, remote, GiveUp(failure=failure))

    async def _apply(
        self,
        connection: Connection,
        ticket: OpenTicket,
        remote: RemoteTicket | None,
        action: Action,
    ) -> bool:
        """Write what becomes of ticket and items; False when somebody else has done it."""
        match action:
            case Follow(stage=stage, reason=told):
                reason = told or (f"Torrentino: {remote.state}" if remote else "")
                await move_items(connection, ticket, stage, reason=reason, tell=told is not None)
            case Wait():
                log.warning("unknown_ticket_state", ticket=ticket.torrentino_id, remote=remote)
            case Collect():
                return await self._collect(connection, ticket, remote, action)
            case Process():
                return await self._note_processing(connection, ticket, remote, action)
            case AskAgain():
                await self._end(connection, ticket, remote, withdraw=action.withdraw)
                await self._ask_again(connection, ticket, action.reason)
            case GoOn():
                await self._end(connection, ticket, remote, withdraw=True)
                await self._go_on(connection, ticket, action)
            case NextSource(info_hash=info_hash):
                await self._sources.forget(connection, ticket)
                log.info("source_refused", ticket=ticket.torrentino_id, info_hash=info_hash)
            case Gather(failure=failure):
                raise AssertionError(f"gathered before it is applied: {failure}")
            case GiveUp(failure=failure, withdraw=withdraw):
                await self._end(connection, ticket, remote, withdraw=withdraw)
                await self._fail_items(connection, ticket, failure)
            case _:
                assert_never(action)
        return True

    async def _collect(
        self,
        connection: Connection,
        ticket: OpenTicket,
        remote: RemoteTicket | None,
        action: Collect,
    ) -> bool:
        self._refused.pop(ticket.id, None)
        path = action.torrent_path
        closed = await self._store.close(
            connection, ticket, remote, torrent_path=path, size_bytes=action.size_bytes
        )
        if not closed:
            return False
        reason = "Torrentino has placed the file" if path is None else "the torrent is complete"
        await move_items(connection, ticket, Stage.READY, reason=reason)
        self._woken.update(["fetch", "ticket"])
        return True

    async def _note_processing(
        self,
        connection: Connection,
        ticket: OpenTicket,
        remote: RemoteTicket | None,
        plan: Process,
    ) -> bool:
        assert remote is not None, "a ticket that is gone is not processed"
        if not await self._store.processing(connection, ticket, remote, plan):
            return False
        reason = f"Torrentino is told which {len(plan.files)} files of the torrent to place"
        await move_items(connection, ticket, Stage.PROCESSING, reason=reason)
        return True

    async def _end(
        self,
        connection: Connection,
        ticket: OpenTicket,
        remote: RemoteTicket | None,
        *,
        withdraw: bool,
    ) -> None:
        self._refused.pop(ticket.id, None)
        if withdraw:
            await self._store.withdraw(connection, ticket)
        else:
            await self._store.close(connection, ticket, remote)
        self._woken.update(["ticket"])

    async def _ask_again(self, connection: Connection, ticket: OpenTicket, reason: str) -> None:
        """Queue the items for another ticket; from MAX_RETRIES in a row on, each waits longer."""
        before = await detours(connection, ticket)
        beyond = max(0, before + 1 - self._retries.max_retries)
        delay_s = min(self._retries.delay_s(beyond, self._rng), _LONGEST_DETOUR_S)
        if before:
            reason = f"{reason} ({before + 1} tickets in a row have led nowhere)"
        await ask_again(connection, ticket, reason=reason, delay_s=delay_s)

    async def _go_on(self, connection: Connection, ticket: OpenTicket, action: GoOn) -> None:
        """Let the other kind of ticket serve the items; each asks alone for its track only once."""
        nothing = action.failure
        await go_on(
            connection,
            ticket,
            ask_next=action.ask_next,
            reason=action.reason,
            once=nothing is not None,
        )
        if nothing is not None:
            await self._fail_items(connection, ticket, nothing)

    async def _fail_items(
        self, connection: Connection, ticket: OpenTicket, failure: AttemptFailed
    ) -> None:
        item_ids = await items_of(connection, ticket)
        for item_id in item_ids:
            await fail_attempt(
                connection,
                item_id,
                failure,
                stages=sorted(REMOTE),
                fence=None,
                policy=self._retries,
                rng=self._rng,
                actor=ACTOR,
            )
            await block_source(connection, item_id, failure)
            ATTEMPTS_FAILED.labels(failure.error_type).inc()
        await self._other_kind.meet(connection, ticket, item_ids, failure)


def _label(remote: RemoteTicket) -> str:
    known: Sequence[str] = [state.value for state in RemoteState]
    return remote.state if remote.state in known else "unknown"
