"""Scans ordered over NATS, on `command.scan`."""

from __future__ import annotations

import asyncio
import json

import structlog

from shared.bus import subjects
from shared.db.pool import Database
from shared.db.scans import parse_order, start
from shared.errors import Conflict, InvalidRequest

log = structlog.get_logger()

DURABLE = "watchdog"
FILTERS = [subjects.COMMAND_SCAN]
_MOST_ID = 128


class ScanCommands:
    """Understands `{"v":1,"request_id":…,"queue":false,"scope":…,"limit":…}`.

    Without `"queue": true` it is a dry run. The request id is the scan's id, so that a message
    that comes twice orders one scan.
    """

    def __init__(self, database: Database, wake: asyncio.Event) -> None:
        self._database = database
        self._wake = wake

    async def handle(self, _subject: str, body: bytes) -> None:
        """Order the scan. One that comes while another runs is dropped, with a line in the log.

        Raises:
            InvalidRequest: the message cannot be understood.
        """
        command = _object(body)
        if command.pop("v", None) != 1:
            raise InvalidRequest("v: only version 1 is understood")
        scan_id, queue = command.pop("request_id", None), command.pop("queue", False)
        user_id = command.pop("user_id", None)
        if not isinstance(scan_id, str) or not 1 <= len(scan_id) <= _MOST_ID or "\0" in scan_id:
            raise InvalidRequest("request_id: a text of 1 to 128 characters is needed")
        if not isinstance(queue, bool) or not isinstance(user_id, str | None):
            raise InvalidRequest("queue: true or false; user_id: a text")
        try:
            await start(
                self._database,
                parse_order(command),
                queue=queue,
                requested_by=user_id,
                scan_id=scan_id,
            )
        except Conflict as conflict:
            log.warning("scan_command_dropped", request_id=scan_id, why=str(conflict))
        self._wake.set()


def _object(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequest("not a JSON object")
    return value
