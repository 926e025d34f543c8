"""Tickets that nobody wants any more: cancelled until they stay so, because Torrentino forgets."""

from __future__ import annotations

import structlog

from services.poller.lost_jobs import AtWork
from services.poller.remote_tickets import Reader
from services.poller.store import OpenTicket, Store
from services.poller.torrent_removal import Sources
from shared.crashpoints import reached
from shared.errors import OutcomeUnknown, Refused
from shared.health import Health
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import ENDED, RemoteState, RemoteTicket

log = structlog.get_logger()

# For how many poll intervals a cancel has to hold: a search may take 30 s to get an answer and
# write over it, a creation 20 s to arrive.
_LOOKS = 2
_SEARCH_LOOKS = 8
_UNSEEN_LOOKS = 4


class Withdrawals:
    """Ends tickets at Torrentino."""

    def __init__(
        self,
        *,
        store: Store,
        client: TorrentinoClient,
        reader: Reader,
        sources: Sources,
        health: Health,
        poll_interval_s: float,
    ) -> None:
        self._store = store
        self._client = client
        self._reader = reader
        self._sources = sources
        self._health = health
        self._poll_interval_s = poll_interval_s

    async def look(self, ticket: OpenTicket, remote: RemoteTicket | None, at_work: AtWork) -> bool:
        """Cancel a withdrawn ticket, until it stays cancelled; returns whether that is over."""
        if ticket.torrentino_id is None:
            remote = await self._reader.find(ticket.dest_path)
        if await self._is_over(ticket, remote, at_work):
            async with self._store.database.transaction() as connection:
                await self._store.close(connection, ticket, remote)
            reached("poller.let_go")
            return True
        alive_as = None
        if remote is not None and remote.state not in ENDED:
            alive_as = remote.state
            reached("poller.cancelling")
            await self._cancel(remote, reason="no longer wanted", ticket_id=ticket.id)
        await self._store.at_rest(ticket, alive_as=alive_as)
        reached("poller.rested")
        return False

    async def _is_over(
        self, ticket: OpenTicket, remote: RemoteTicket | None, at_work: AtWork
    ) -> bool:
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
        return remote.id not in (await at_work.pipeline() or ())

    def _held(self, ticket: OpenTicket, *, looks: int) -> bool:
        since = ticket.at_rest_since
        return since is not None and (
            (ticket.now - since).total_seconds() >= looks * self._poll_interval_s
        )

    async def _cancel(self, remote: RemoteTicket, *, reason: str, ticket_id: str = "") -> None:
        """Cancel once; whoever wants it to last looks again."""
        info_hash = remote.info_hash if remote.state == RemoteState.DOWNLOADING else None
        goes_along = info_hash is not None and await self._sources.goes_with(
            info_hash, ticket_id=ticket_id, torrentino_id=remote.id
        )
        try:
            await self._client.cancel(remote.id, reason=reason)
            reached("poller.cancelled")
            if info_hash is not None and goes_along:
                # In this order: the other way round Torrentino goes on with the next candidate.
                await self._sources.remove_cancelled(info_hash)
        except (OutcomeUnknown, Refused) as error:
            log.info("cancel_unsettled", ticket=remote.id, detail=str(error))

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
