"""Scans that are started over NATS, on `command.scan`."""

from __future__ import annotations

import asyncio

import structlog

from services.watchdog.store import ACTOR
from shared.announcer import Announcer
from shared.bus import subjects
from shared.db.events import record_events
from shared.db.pool import Database
from shared.db.scans import start
from shared.errors import Conflict, InvalidRequest
from shared.events import RequestRejected, StartScan, parse

log = structlog.get_logger()

DURABLE = "watchdog"
FILTERS = [subjects.COMMAND_SCAN]


class ScanCommands:
    """Carries out `StartScan`."""

    def __init__(self, database: Database, wake: asyncio.Event, announcer: Announcer) -> None:
        self._database = database
        self._wake = wake
        self._announcer = announcer

    async def handle(self, subject: str, body: bytes) -> None:
        """Start the scan; while another one runs, publish `request.rejected` instead.

        Raises:
            InvalidRequest: the message cannot be understood.
            Unavailable: it cannot be decided now.
        """
        command = parse(subject, body)
        if not isinstance(command, StartScan):
            raise InvalidRequest(f"the watchdog does not handle {subject}")
        try:
            await start(
                self._database,
                command.order(),
                queue=command.queue,
                requested_by=command.user_id,
                scan_id=command.request_id,
            )
        except Conflict as conflict:
            await self._refuse(command, conflict)
        self._wake.set()

    async def _refuse(self, command: StartScan, conflict: Conflict) -> None:
        log.warning("scan_command_refused", request_id=command.request_id, why=str(conflict))
        rejected = RequestRejected(
            request_id=command.request_id,
            user_id=command.user_id,
            content=None,
            content_id=None,
            problem=type(conflict).__name__,
            reason=str(conflict),
        )
        async with self._database.transaction() as connection:
            await record_events(connection, [rejected], actor=ACTOR)
        await self._announcer.announce()
