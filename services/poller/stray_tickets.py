"""The sweep for tickets in our folder that live at Torrentino and serve no item."""

from __future__ import annotations

import asyncio

import structlog

from services.poller.stray_store import StrayStore
from shared.acquisition.removal import Removal
from shared.acquisition.tickets import Tickets, begun_of
from shared.crashpoints import reached
from shared.errors import Unavailable
from shared.health import Health
from shared.torrentino.model import RemoteTicket

log = structlog.get_logger()


# What has ended may have left files. Its lists are long, and such a ticket is rare.
_ENDED_EVERY_S = 3600.0


class StraySweep:
    """Cancels tickets of creations that were found too late, and tickets that came back to life.

    So it does with a ticket of this installation whose row was lost; its row is made again.
    """

    def __init__(
        self, store: StrayStore, tickets: Tickets, removal: Removal, health: Health
    ) -> None:
        self._store = store
        self._removal = removal
        self._tickets = tickets
        self._health = health
        self._read_ended_at: float | None = None

    async def run_once(self) -> int:
        """Withdraw tickets whose items have all ended, and cancel strays; returns 0.

        Raises:
            Unavailable: Torrentino, its torrent client or PostgreSQL is away.
        """
        orphans = await self._store.withdraw_orphans()
        if orphans:
            log.warning("tickets_without_items", count=orphans)
        reached("poller.orphans")
        strays, lost = await self._strays()
        self._health.up("torrentino")
        for stray in strays:
            log.warning("stray_ticket", ticket=stray.id, dest_path=stray.dest_path)
            if not await self._store.reopen(stray):
                await self._end(stray)
        for ticket in lost:
            if await self._store.withdraw_lost(ticket):
                log.warning("lost_ticket", ticket=ticket.id, dest_path=ticket.dest_path)
        return 0

    async def _end(self, stray: RemoteTicket) -> None:
        """Cancel it; one that fails alone waits for the next sweep, and stops no other."""
        try:
            await cancel(self._tickets, stray, reason="a ticket that no item waits for")
        except Unavailable as away:
            if not await self._removal.works(away.dependency):
                raise
            log.warning("stray_not_ended", ticket=stray.id, detail=str(away))

    async def _strays(self) -> tuple[list[RemoteTicket], list[RemoteTicket]]:
        """Live tickets in our folder that belong to none of our open rows; and without any row."""
        living = await self._tickets.living()
        ended = await self._ended()
        # The rows are read after the lists, so that a ticket made in between is not a stray.
        known = await self._store.known({remote.dest_path for remote in [*living, *ended]})
        ours = await self._store.installation()
        strays = [
            remote
            for remote in living
            if (row := known.get(remote.dest_path)) is not None
            and (
                row["state"] == "closed"
                or (row["state"] == "open" and row["torrentino_id"] != remote.id)
            )
        ]
        # What lies elsewhere may be another installation's, or an older release's.
        lost = [
            remote
            for remote in [*living, *ended]
            if remote.dest_path not in known and self._tickets.is_of(remote, installation=ours)
        ]
        return strays, lost

    async def _ended(self) -> list[RemoteTicket]:
        now = asyncio.get_running_loop().time()
        if self._read_ended_at is not None and now - self._read_ended_at < _ENDED_EVERY_S:
            return []
        ended = await self._tickets.ended()
        self._read_ended_at = now
        return ended


async def cancel(
    tickets: Tickets, remote: RemoteTicket, *, reason: str, ticket_id: str = ""
) -> None:
    """Cancel once, with the torrent where `Removal` lets it go; what came of it shows later.

    `ticket_id` is ours, where we have a row of it.
    """
    await tickets.give_up([begun_of(remote, id_=ticket_id)], reason=reason, with_data=True)
