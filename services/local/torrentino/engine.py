"""The orchestrator: the loops that advance tickets, and its switch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from services.local.torrentino import states
from services.local.torrentino.acquisition import Acquisition
from services.local.torrentino.core import Core
from services.local.torrentino.downloads import Downloads
from services.local.torrentino.pipeline import Pipeline
from services.local.torrentino.states import State
from services.local.torrentino.tickets import Ticket
from services.local.torrentino.timestamps import now_ns

_LOG = logging.getLogger(__name__)


class Engine:
    """The work that runs without a request; call `start` and `close` once each."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._acquisition = Acquisition(core)
        self.pipeline = Pipeline(core)
        self.downloads = Downloads(core, self._acquisition, self.pipeline)
        self._loops: list[asyncio.Task[None]] = []
        self.running = core.config.orchestrator

    def start(self) -> None:
        """Resume the downloads; acquiring, converting and placing tickets stay stuck."""
        if not self._core.config.orchestrator:
            return
        self.downloads.recover()
        self._loops = [
            asyncio.create_task(self._acquire_for_ever(), name="stand-in acquisition"),
            asyncio.create_task(self._beat_for_ever(), name="stand-in beat"),
        ]
        for loop in self._loops:
            loop.add_done_callback(_log_failure)

    async def close(self) -> None:
        """Stop all work where it is."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self.pipeline.close()
        self._core.tickets.flush()

    def force(self, ticket: Ticket, state: State) -> None:
        """Take the ticket out of all loops, then write the state."""
        ticket.hands += 1
        self.downloads.forget(ticket.id)
        self.pipeline.forget(ticket.id)
        self._core.tickets.put(ticket.id, state)

    @property
    def available(self) -> bool:
        """Whether orchestrator, searcher and torrent client are configured."""
        faults = self._core.faults
        there = faults.client_configured and faults.searcher_configured
        return self._core.config.orchestrator and there

    def status(self) -> Mapping[str, object]:
        """The answer of `/orchestrator/status`."""
        available, count = self.available, self._core.tickets.count
        return {
            "available": available,
            "running": available and self.running,
            "active_downloads": self.downloads.active if available else 0,
            "acquiring_count": count("acquiring") if available else 0,
            "pending_count": count("pending") if available else 0,
            "needs_approval_count": count("needs_approval") if available else 0,
            "downloading_count": count("downloading") if available else 0,
        }

    async def _acquire_for_ever(self) -> None:
        while True:
            working = self.running and self.available
            ticket = self._core.tickets.first_of_kind("pending") if working else None
            if ticket is None:
                await asyncio.sleep(self._core.config.tick_s)
            else:
                await self._acquisition.acquire(ticket)

    async def _beat_for_ever(self) -> None:
        while True:
            if self.running and self.available:
                self._release_retries()
                self.downloads.step()
            self._core.tickets.flush()
            await asyncio.sleep(self._core.config.tick_s)

    def _release_retries(self) -> None:
        if not self._core.tickets.count("pending_retry"):
            return
        for ticket in self._core.tickets.of_kind("pending_retry"):
            if _due(ticket.state.get("retry_after")):
                self._core.tickets.put(ticket.id, states.PENDING)


def _due(moment: object) -> bool:
    with suppress(ValueError):  # a state that a test set: never due
        return datetime.fromisoformat(str(moment)).timestamp() * 1e9 <= now_ns()
    return False


def _log_failure(loop: asyncio.Task[None]) -> None:
    if not loop.cancelled() and (exc := loop.exception()) is not None:
        _LOG.critical("the stand-in's loop %s failed", loop.get_name(), exc_info=exc)
