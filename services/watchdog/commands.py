"""Scans ordered over NATS, on `command.scan`."""

from __future__ import annotations

import asyncio

import structlog

from shared.bus import subjects
from shared.db.events import record_event
from shared.db.pool import Database
from shared.db.scans import parse_order, start
from shared.errors import Conflict, InvalidRequest
from shared.untrusted import json_object, token

log = structlog.get_logger()

ACTOR = "watchdog"
DURABLE = "watchdog"
FILTERS = [subjects.COMMAND_SCAN]


class ScanCommands:
    """Understands `{"v":1,"request_id":…,"queue":false,"scope":…,"limit":…}`.

    Without `"queue": true` it is a dry run. The request id is the scan's id, so that a message
    that comes twice orders one scan.
    """

    def __init__(self, database: Database, wake: asyncio.Event, relay_wake: asyncio.Event) -> None:
        self._database = database
        self._wake = wake
        self._relay_wake = relay_wake

    async def handle(self, _subject: str, body: bytes) -> None:
        """Order the scan. One that comes while another runs is told as `request.rejected`.

        Raises:
            InvalidRequest: the message cannot be understood.
            Unavailable: it cannot be decided now.
        """
        command = json_object(body)
        version, queue = command.pop("v", None), command.pop("queue", False)
        if version != 1 or isinstance(version, bool):
            raise InvalidRequest("v: only version 1 is understood")
        scan_id = _token(command.pop("request_id", None), what="request_id")
        user_id = command.pop("user_id", None)
        if user_id is not None:
            user_id = _token(user_id, what="user_id")
        if not isinstance(queue, bool):
            raise InvalidRequest("queue: true or false")
        order = parse_order(command)
        try:
            await start(self._database, order, queue=queue, requested_by=user_id, scan_id=scan_id)
        except Conflict as conflict:
            await self._refuse(scan_id, user_id, conflict)
        self._wake.set()

    async def _refuse(self, scan_id: str, user_id: str | None, conflict: Conflict) -> None:
        log.warning("scan_command_refused", request_id=scan_id, why=str(conflict))
        async with self._database.transaction() as connection:
            await record_event(
                connection,
                "request.rejected",
                {
                    "request_id": scan_id,
                    "user_id": user_id,
                    "problem": type(conflict).__name__,
                    "reason": str(conflict),
                },
                actor=ACTOR,
            )
        self._relay_wake.set()


def _token(value: object, *, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"{what}: a text is needed")
    return token(value, what=what)
