"""The poller: follows open tickets until Torrentino has ended each of them.

Polling is the truth, the WebSocket only says which ticket to look at first. A ticket whose
attempt was given up is cancelled until it stays cancelled, because Torrentino forgets cancels.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import structlog

from services.poller.mapping import (
    GONE,
    Action,
    AskAgain,
    Collect,
    Follow,
    GiveUp,
    NextSource,
    Wait,
    action_for,
    only_bad_sources,
    refusal_of,
)
from services.poller.reading import Reader
from services.poller.store import ACTOR, OpenTicket, Store
from services.poller.stranded import stranded
from shared.backoff import RetryPolicy
from shared.bus.nats import Bus
from shared.crashpoints import reached
from shared.db.items import fail_attempt
from shared.db.pool import Connection
from shared.db.sources import block_source
from shared.errors import AttemptFailed, ErrorType, Hold, OutcomeUnknown, Refused
from shared.health import Health
from shared.metrics import ATTEMPTS_FAILED, TICKETS_POLLED
from shared.states import REMOTE, Stage
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import ENDED, RemoteState, RemoteTicket

log = structlog.get_logger()

# Tickets to look at in one run.
_MOST = 500
# For how many poll intervals a cancel has to hold: a search may take 30 s to get an answer and
# write over it, a creation 20 s to arrive.
_LOOKS = 2
_SEARCH_LOOKS = 8
_UNSEEN_LOOKS = 4
# A detour waits no longer: what it waits for is the end of an outage.
_LONGEST_DETOUR_S = 3600.0
# Five candidates in three rounds are all that Torrentino tries.
_MOST_REFUSALS = 15
_WAITS_FOR_A_PERSON = frozenset({Stage.NEEDS_APPROVAL})


class Poller:
    """Looks at the tickets that are due, and moves their items on."""

    def __init__(
        self,
        *,
        store: Store,
        client: TorrentinoClient,
        reader: Reader,
        bus: Bus,
        relay_wake: asyncio.Event,
        health: Health,
        retries: RetryPolicy,
        rng: random.Random,
        poll_interval_s: float,
        stall_timeout_s: float,
    ) -> None:
        self._store = store
        self._client = client
        self._reader = reader
        self._bus = bus
        self._relay_wake = relay_wake
        self._health = health
        self._torrentino = health.breaker("torrentino")
        self._retries = retries
        self._rng = rng
        self._poll_interval_s = poll_interval_s
        self._stall_timeout_s = stall_timeout_s
        self._woken: Counter[str] = Counter()
        # How often a blocked torrent was taken from a ticket; forgotten with the ticket.
        self._refused: Counter[str] = Counter()

    async def run_once(self) -> int:
        """Look at every ticket that is due; returns how many changed what their items do.

        Raises:
            Hold: Torrentino or PostgreSQL is away; the tickets stay as they were.
        """
        if not self._torrentino.ok:
            await self._client.health()
            self._health.up("torrentino")
        await self._remove_bad_torrents()
        recovering = not self._torrentino.closed
        due = await self._store.claim(limit=self._torrentino.allowance(_MOST))
        if not due:
            return 0
        reached("poller.claimed")
        try:
            seen = await self._reader.read([ticket for ticket in due if ticket.torrentino_id])
        except Hold:
            await self._store.put_off(due, delay_s=self._poll_interval_s)
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._store.put_off(due, delay_s=0))
            raise
        self._health.up("torrentino")
        reached("poller.read")
        self._woken.clear()
        try:
            await self._look_at_all(due, seen)
        finally:
            await self._wake_others()
        # What is due again at once is for the next beat, not for this one.
        return len(due) if recovering else 0

    async def _remove_bad_torrents(self) -> None:
        """Take blocked torrents out of the client, so that no ticket finds one downloaded there."""
        for info_hash in await self._store.bad_torrents():
            try:
                await self._client.remove_torrent(info_hash, delete_files=True)
            except OutcomeUnknown as error:
                log.info("removal_unsettled", info_hash=info_hash, detail=str(error))
                continue
            except Refused as error:
                log.warning("bad_torrent_stays", info_hash=info_hash, detail=str(error))
            await self._store.bad_torrent_removed(info_hash)

    async def _look_at_all(
        self, due: Sequence[OpenTicket], seen: dict[str, RemoteTicket | None]
    ) -> None:
        for place, ticket in enumerate(due):
            try:
                await self._look(ticket, seen)
            except Hold:
                await self._store.put_off(due[place:], delay_s=self._poll_interval_s)
                raise
            except asyncio.CancelledError:
                await asyncio.shield(self._store.put_off(due[place:], delay_s=0))
                raise
            except Exception:
                # One ticket that we cannot cope with must not keep the others from being seen.
                log.exception("look_failed", ticket=ticket.id, torrentino=ticket.torrentino_id)

    async def _wake_others(self) -> None:
        self._relay_wake.set()
        if self._woken["fetch"]:
            await self._bus.wake("fetch")
        if self._woken["ticket"]:
            await self._bus.wake("ticket")

    async def _look(self, ticket: OpenTicket, seen: dict[str, RemoteTicket | None]) -> None:
        if ticket.withdrawing:
            await self._withdraw(ticket, seen.get(ticket.torrentino_id or ""))
            return
        assert ticket.torrentino_id is not None, "an open ticket has Torrentino's id"
        remote = seen[ticket.torrentino_id]
        TICKETS_POLLED.labels("gone" if remote is None else _label(remote)).inc()
        action = GONE if remote is None else await self._action(ticket, remote)
        stopped = await self._is_stopped(ticket)
        async with self._store.database.transaction() as connection:
            if remote is not None:
                idle_s = await self._store.observe(connection, ticket, remote)
                if idle_s is None:
                    return
                reached("poller.observed")
                if idle_s >= self._stall_timeout_s:
                    action = await self._stalled(connection, ticket, action, stopped) or action
            await self._apply(connection, ticket, remote, action)
            reached("poller.applied")
        reached("poller.moved")
        if isinstance(action, NextSource):
            await self._refuse(ticket, action.info_hash)

    async def _action(self, ticket: OpenTicket, remote: RemoteTicket) -> Action:
        refusal = refusal_of(remote, seen=ticket.info_hash, blocked=ticket.blocked)
        match refusal:
            case None:
                lost = await stranded(
                    self._client, ticket, remote, stall_timeout_s=self._stall_timeout_s
                )
                return lost or action_for(remote)
            case NextSource(info_hash=info_hash):
                # A torrent that another ticket needs cannot be taken from this one.
                shared = await self._store.is_wanted(info_hash, but=ticket.id)
                if shared or self._refused[ticket.id] >= _MOST_REFUSALS:
                    return only_bad_sources(ticket.blocked, withdraw=True)
        return refusal

    async def _refuse(self, ticket: OpenTicket, info_hash: str) -> None:
        """Remove the torrent under the living ticket: Torrentino then takes the next candidate."""
        self._refused[ticket.id] += 1
        try:
            await self._client.remove_torrent(info_hash, delete_files=True)
        except (OutcomeUnknown, Refused) as error:
            log.info("refusal_unsettled", ticket=ticket.torrentino_id, detail=str(error))

    async def _is_stopped(self, ticket: OpenTicket) -> bool | None:
        """Whether Torrentino works on no ticket at all; asked only about one that may stall."""
        idle_s = (ticket.now - ticket.progressed_at).total_seconds()
        if ticket.remote_state is None or idle_s < self._stall_timeout_s:
            return None
        return not (await self._client.orchestrator()).get("running")

    async def _stalled(
        self, connection: Connection, ticket: OpenTicket, action: Action, stopped: bool | None
    ) -> GiveUp | None:
        """The end of a ticket that has long made no progress; None if that is not its fault."""
        if isinstance(action, Follow) and action.stage in _WAITS_FOR_A_PERSON:
            return None
        if not isinstance(action, Follow | Wait) or stopped is None:
            return None
        if stopped or await self._waits_its_turn(connection, ticket):
            log.warning("stall_excused", ticket=ticket.torrentino_id, orchestrator_stopped=stopped)
            await self._store.restart_stall_clock(connection, ticket)
            return None
        message = f"no progress at Torrentino for {self._stall_timeout_s:.0f} s"
        return GiveUp(failure=AttemptFailed(ErrorType.STALLED, message), withdraw=True)

    async def _waits_its_turn(self, connection: Connection, ticket: OpenTicket) -> bool:
        # Torrentino searches for one ticket at a time.
        return ticket.remote_state == RemoteState.PENDING and await self._store.others_progress(
            connection, ticket, within_s=self._stall_timeout_s
        )

    async def _apply(
        self,
        connection: Connection,
        ticket: OpenTicket,
        remote: RemoteTicket | None,
        action: Action,
    ) -> None:
        match action:
            case Follow(stage=stage):
                reason = f"Torrentino: {remote.state}" if remote else ""
                await self._store.move_items(connection, ticket, stage, reason=reason)
            case Wait():
                log.warning("unknown_ticket_state", ticket=ticket.torrentino_id, remote=remote)
            case Collect():
                self._refused.pop(ticket.id, None)
                if await self._store.close(connection, ticket, remote):
                    await self._store.move_items(
                        connection, ticket, Stage.READY, reason="Torrentino has placed the file"
                    )
                    self._woken.update(["fetch", "ticket"])
            case AskAgain():
                await self._end(connection, ticket, remote, withdraw=action.withdraw)
                await self._ask_again(connection, ticket, action.reason)
            case NextSource(info_hash=info_hash):
                await self._store.forget_source(connection, ticket)
                log.info("source_refused", ticket=ticket.torrentino_id, info_hash=info_hash)
            case GiveUp(failure=failure, withdraw=withdraw):
                await self._end(connection, ticket, remote, withdraw=withdraw)
                await self._fail_items(connection, ticket, failure)

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
        before = await self._store.detours(connection, ticket)
        beyond = max(0, before + 1 - self._retries.max_retries)
        delay_s = min(self._retries.delay_s(beyond, self._rng), _LONGEST_DETOUR_S)
        if before:
            reason = f"{reason} ({before + 1} tickets in a row have led nowhere)"
        await self._store.ask_again(connection, ticket, reason=reason, delay_s=delay_s)

    async def _fail_items(
        self, connection: Connection, ticket: OpenTicket, failure: AttemptFailed
    ) -> None:
        for item_id in await self._store.items(connection, ticket):
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

    async def _withdraw(self, ticket: OpenTicket, remote: RemoteTicket | None) -> None:
        """Cancel a ticket that nobody wants any more, until it stays cancelled."""
        if ticket.torrentino_id is None:
            remote = await self._reader.find(ticket.dest_path)
        if await self._is_over(ticket, remote):
            async with self._store.database.transaction() as connection:
                await self._store.close(connection, ticket, remote)
            reached("poller.let_go")
            self._woken.update(["ticket"])
            return
        alive_as = None
        if remote is not None and remote.state not in ENDED:
            alive_as = remote.state
            reached("poller.cancelling")
            await self._cancel(remote, reason="no longer wanted")
        await self._store.at_rest(ticket, alive_as=alive_as)
        reached("poller.rested")

    async def _is_over(self, ticket: OpenTicket, remote: RemoteTicket | None) -> bool:
        """Whether nothing can come of a withdrawn ticket any more (reference: §2.5)."""
        if remote is None:
            # Asked for, and never seen: the request may still be on its way.
            return ticket.torrentino_id is not None or self._held(ticket, looks=_UNSEEN_LOOKS)
        if remote.state not in ENDED:
            return False
        if remote.state != RemoteState.CANCELLED:
            return True
        # Its loops may still overwrite a cancel. A search writes only when it gets an answer, and
        # a conversion when it is done.
        searching = ticket.remote_state == RemoteState.ACQUIRING
        if not self._held(ticket, looks=_SEARCH_LOOKS if searching else _LOOKS):
            return False
        return remote.id not in (await self._client.pipeline() or ())

    def _held(self, ticket: OpenTicket, *, looks: int) -> bool:
        since = ticket.at_rest_since
        return since is not None and (
            (ticket.now - since).total_seconds() >= looks * self._poll_interval_s
        )

    async def _cancel(self, remote: RemoteTicket, *, reason: str) -> None:
        """Cancel once; whoever wants it to last looks again."""
        try:
            await self._client.cancel(remote.id, reason=reason)
            reached("poller.cancelled")
            if remote.state == RemoteState.DOWNLOADING and remote.info_hash:
                # In this order: the other way round Torrentino goes on with the next candidate.
                await self._remove_torrent(remote.info_hash)
        except (OutcomeUnknown, Refused) as error:
            log.info("cancel_unsettled", ticket=remote.id, detail=str(error))

    async def _remove_torrent(self, info_hash: str) -> None:
        if await self._store.is_wanted(info_hash):
            log.info("torrent_kept", info_hash=info_hash, why="another ticket downloads it too")
            return
        await self._client.remove_torrent(info_hash, delete_files=True)
        reached("poller.torrent_removed")

    async def cancel_strays(self) -> int:
        """Cancel what lives at Torrentino and serves no item of ours; returns 0.

        Tickets of creations that were found too late, tickets that came back to life after a
        cancel that seemed to hold, and open rows whose items have all ended.
        """
        orphans = await self._store.withdraw_orphans()
        if orphans:
            log.warning("tickets_without_items", count=orphans)
        reached("poller.orphans")
        strays = await self._reader.strays(self._store)
        self._health.up("torrentino")
        for stray in strays:
            log.warning("stray_ticket", ticket=stray.id, dest_path=stray.dest_path)
            if not await self._store.reopen(stray):
                await self._cancel(stray, reason="a ticket that nobody waits for")
        return 0


def _label(remote: RemoteTicket) -> str:
    known: Sequence[str] = [state.value for state in RemoteState]
    return remote.state if remote.state in known else "unknown"
