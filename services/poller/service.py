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
    Wait,
    action_for,
)
from services.poller.reading import Reader
from services.poller.store import ACTOR, OpenTicket, Store
from shared.backoff import RetryPolicy
from shared.bus.nats import Bus
from shared.db.items import fail_attempt
from shared.db.pool import Connection
from shared.errors import AttemptFailed, ErrorType, Hold, OutcomeUnknown, Refused
from shared.health import Health
from shared.metrics import ATTEMPTS_FAILED, TICKETS_POLLED
from shared.states import REMOTE, Stage
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import ENDED, RemoteState, RemoteTicket

log = structlog.get_logger()

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
        self._retries = retries
        self._rng = rng
        self._poll_interval_s = poll_interval_s
        self._stall_timeout_s = stall_timeout_s
        self._woken: Counter[str] = Counter()

    async def run_once(self) -> int:
        """Look at every ticket that is due; returns how many changed what their items do.

        Raises:
            Hold: Torrentino or PostgreSQL is away; the tickets stay as they were.
        """
        due = await self._store.claim()
        if not due:
            return 0
        try:
            seen = await self._reader.read([ticket for ticket in due if ticket.torrentino_id])
        except Hold:
            await self._store.put_off(due, delay_s=self._poll_interval_s)
            raise
        self._health.up("torrentino")
        self._woken.clear()
        try:
            await self._look_at_all(due, seen)
        finally:
            await self._wake_others()
        # What is due again at once is for the next beat, not for this one.
        return 0

    async def _look_at_all(
        self, due: Sequence[OpenTicket], seen: dict[str, RemoteTicket | None]
    ) -> None:
        for place, ticket in enumerate(due):
            try:
                await self._look(ticket, seen)
            except Hold:
                await self._store.put_off(due[place:], delay_s=self._poll_interval_s)
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
        action = GONE if remote is None else action_for(remote)
        async with self._store.database.transaction() as connection:
            if remote is not None:
                idle_s = await self._store.observe(connection, ticket, remote)
                if idle_s is None:
                    return
                action = self._stalled(action, idle_s) or action
            await self._apply(connection, ticket, remote, action)

    def _stalled(self, action: Action, idle_s: float) -> GiveUp | None:
        if isinstance(action, Follow) and action.stage in _WAITS_FOR_A_PERSON:
            return None
        if not isinstance(action, Follow | Wait) or idle_s < self._stall_timeout_s:
            return None
        message = f"no progress at Torrentino for {idle_s:.0f} s"
        return GiveUp(failure=AttemptFailed(ErrorType.STALLED, message), withdraw=True)

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
                if await self._store.close(connection, ticket, remote):
                    await self._store.move_items(
                        connection, ticket, Stage.READY, reason="Torrentino has placed the file"
                    )
                    self._woken.update(["fetch", "ticket"])
            case AskAgain(reason=reason, withdraw=withdraw):
                await self._end(connection, ticket, remote, withdraw=withdraw)
                delay_s = self._retries.delay_s(0, self._rng)
                await self._store.move_items(
                    connection, ticket, Stage.QUEUED, reason=reason, delay_s=delay_s
                )
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
        if withdraw:
            await self._store.withdraw(connection, ticket)
        else:
            await self._store.close(connection, ticket, remote)
        self._woken.update(["ticket"])

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
            ATTEMPTS_FAILED.labels(failure.error_type).inc()

    async def _withdraw(self, ticket: OpenTicket, remote: RemoteTicket | None) -> None:
        """Cancel a ticket that nobody wants any more, until it stays cancelled."""
        if ticket.torrentino_id is None:
            remote = await self._reader.find(ticket.dest_path)
        if remote is None or self._rested(ticket, remote):
            async with self._store.database.transaction() as connection:
                await self._store.close(connection, ticket, remote)
            self._woken.update(["ticket"])
            return
        resting = remote.state in ENDED
        if not resting:
            await self._cancel(remote, reason="no longer wanted")
        await self._store.at_rest(ticket, resting=resting)

    def _rested(self, ticket: OpenTicket, remote: RemoteTicket) -> bool:
        if remote.state not in ENDED:
            return False
        if remote.state != RemoteState.CANCELLED:
            return True
        # Its loops may still overwrite a cancel: it counts when it has held for two looks.
        since = ticket.at_rest_since
        return since is not None and (
            (ticket.now - since).total_seconds() >= 2 * self._poll_interval_s
        )

    async def _cancel(self, remote: RemoteTicket, *, reason: str) -> None:
        """Cancel once; whoever wants it to last looks again."""
        try:
            await self._client.cancel(remote.id, reason=reason)
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

    async def cancel_strays(self) -> int:
        """Cancel what lives at Torrentino and serves no item of ours; returns 0.

        Tickets of creations that were found too late, tickets that came back to life after a
        cancel that seemed to hold, and open rows whose items have all ended.
        """
        orphans = await self._store.withdraw_orphans()
        if orphans:
            log.warning("tickets_without_items", count=orphans)
        strays = await self._reader.strays(self._store)
        self._health.up("torrentino")
        for stray in strays:
            log.warning("stray_ticket", ticket=stray.id, dest_path=stray.dest_path)
            await self._cancel(stray, reason="a ticket that nobody waits for")
        return 0


def _label(remote: RemoteTicket) -> str:
    known: Sequence[str] = [state.value for state in RemoteState]
    return remote.state if remote.state in known else "unknown"
