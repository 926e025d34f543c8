"""Tickets that have long made no progress: whose fault that is, and when the attempt ends."""

from __future__ import annotations

import structlog

from services.poller.lost_jobs import AtWork
from services.poller.store import OpenTicket, Store
from services.poller.torrent_client import TorrentClient
from services.poller.verdicts import Action, Follow, GiveUp, Wait
from shared.db.pool import Connection
from shared.errors import AttemptFailed, ErrorType
from shared.states import Stage
from shared.torrentino.model import RemoteState

log = structlog.get_logger()

_WAITS_FOR_A_PERSON = frozenset({Stage.NEEDS_APPROVAL})


class Stalls:
    """Judges tickets that show the same for `timeout_s`."""

    def __init__(self, store: Store, torrent_client: TorrentClient, *, timeout_s: float) -> None:
        self._store = store
        self._torrent_client = torrent_client
        self._timeout_s = timeout_s

    def is_due(self, idle_s: float) -> bool:
        """Whether a ticket that has made no progress for so long is to be judged."""
        return idle_s >= self._timeout_s

    async def is_stopped(self, ticket: OpenTicket, at_work: AtWork) -> bool | None:
        """Whether Torrentino works on no ticket at all; asked only about one that may stall."""
        idle_s = (ticket.now - ticket.progressed_at).total_seconds()
        if ticket.remote_state is None or not self.is_due(idle_s):
            return None
        return not await at_work.running()

    async def end_of(
        self, connection: Connection, ticket: OpenTicket, action: Action, *, stopped: bool | None
    ) -> GiveUp | None:
        """The end of a ticket that is to be judged; None if it is not its fault.

        `stopped` is what `is_stopped` said before.
        """
        if isinstance(action, Follow) and action.stage in _WAITS_FOR_A_PERSON:
            return None
        if not isinstance(action, Follow | Wait) or stopped is None:
            return None
        away = not self._torrent_client.ok
        if stopped or away or await self._waits_its_turn(connection, ticket):
            log.warning(
                "stall_excused",
                ticket=ticket.torrentino_id,
                orchestrator_stopped=stopped,
                client_away=away,
            )
            await self._store.restart_stall_clock(connection, ticket)
            return None
        message = f"no progress at Torrentino for {self._timeout_s:.0f} s"
        if isinstance(action, Follow) and action.reason is not None:
            message = f"{message}: {action.reason}"
        return GiveUp(failure=AttemptFailed(ErrorType.STALLED, message), withdraw=True)

    async def _waits_its_turn(self, connection: Connection, ticket: OpenTicket) -> bool:
        # Torrentino searches for one ticket at a time.
        return ticket.remote_state == RemoteState.PENDING and await self._store.others_progress(
            connection, ticket, within_s=self._timeout_s
        )
