"""Tickets that a restart of Torrentino left in a state that nothing there works on any more.

Only downloads are taken up again by a Torrentino that restarts. What it was searching for,
converting or placing stays in that state for ever, and looks as if it were at work.
"""

from __future__ import annotations

from services.poller.store import OpenTicket
from services.poller.verdicts import AskAgain
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import RemoteState, RemoteTicket

# Seconds without a change after which it is worth asking; the longest that each may take.
_SUSPECT_S: dict[str, float] = {
    RemoteState.ACQUIRING: 15 * 60.0,
    RemoteState.CONVERTING: 65 * 60.0,
    RemoteState.PLACING: 30 * 60.0,
}


class AtWork:
    """What Torrentino works on, asked at most once: for the tickets of one run, read before it."""

    def __init__(self, client: TorrentinoClient) -> None:
        self._client = client
        self._pipeline: list[frozenset[str] | None] = []
        self._running: list[bool] = []

    async def pipeline(self) -> frozenset[str] | None:
        """As `TorrentinoClient.pipeline`."""
        if not self._pipeline:
            self._pipeline.append(await self._client.pipeline())
        return self._pipeline[0]

    async def running(self) -> bool:
        """Whether the orchestrator works on tickets."""
        if not self._running:
            self._running.append((await self._client.orchestrator()).get("running") is True)
        return self._running[0]


async def stranded(
    client: TorrentinoClient,
    at_work: AtWork,
    ticket: OpenTicket,
    remote: RemoteTicket,
    *,
    stall_timeout_s: float,
) -> AskAgain | None:
    """What to do about a ticket that is at rest in such a state; None when it is not.

    STALL_TIMEOUT_S bounds the wait: what is stranded is found before it counts as stalled.

    Raises:
        Unavailable: Torrentino does not answer, or refuses us.
    """
    suspect_s = _SUSPECT_S.get(remote.state)
    if suspect_s is None or ticket.remote_state != remote.state:
        return None
    idle_s = (ticket.now - ticket.progressed_at).total_seconds()
    if idle_s < min(suspect_s, stall_timeout_s):
        return None
    busy = await at_work.pipeline()
    if busy is None or remote.id in busy:
        return None
    # It may have been moved on between the two answers, or begun anew since.
    again = await client.get(remote.id)
    if again is None or (again.state, again.updated) != (remote.state, remote.updated):
        return None
    reason = f"{remote.state} at Torrentino for {idle_s:.0f} s, but nothing there works on it"
    return AskAgain(reason=reason, withdraw=True)
