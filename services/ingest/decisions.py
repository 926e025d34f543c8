"""What waits for an administrator, and what one decides about it.

Two things wait: a ticket that Torrentino wants approved, which is decided there, and an item whose
torrent has several files that could be it, which is decided here.
"""

from __future__ import annotations

import asyncio
import random
from typing import Literal

import structlog

from shared.backoff import RetryPolicy
from shared.bus.nats import Bus
from shared.crashpoints import reached
from shared.db import moves
from shared.db.bad_sources import lacks_source
from shared.db.items import fail_attempt
from shared.db.pool import Connection, Database, Row
from shared.errors import AttemptFailed, Conflict, ErrorType, InvalidRequest, Unknown
from shared.states import Stage
from shared.untrusted import token

log = structlog.get_logger()

ACTOR = "ingest"

_LOCK = """
SELECT id, stage, error_evidence FROM queue_items WHERE id = $1 FOR NO KEY UPDATE
"""


class Decisions:
    """Decides about items that are held."""

    def __init__(
        self,
        *,
        database: Database,
        bus: Bus,
        relay_wake: asyncio.Event,
        retries: RetryPolicy,
        rng: random.Random,
    ) -> None:
        self._database = database
        self._bus = bus
        self._relay_wake = relay_wake
        self._retries = retries
        self._rng = rng

    async def approve(self, item_id: str, file: object, *, by: str) -> None:
        """Say which of the files that the item shows it is; it is verified as any other.

        Raises:
            InvalidRequest, Unknown: there is no such item, or the file is none of them.
            Conflict: the item is not held.
        """
        async with self._database.transaction() as connection:
            names = _names(await _held(connection, item_id))
            if not isinstance(file, str) or file not in names:
                raise InvalidRequest(
                    f'send {{"file": …}} with one of these names: {", ".join(names)[:2000]}'
                )
            reason = f"administrator {by} says that it is {file}"
            await moves.choose(connection, {item_id: file}, reasons={item_id: reason}, actor=ACTOR)
        await self._tell("fetch", item_id, by=by, decision="approved")

    async def reject(self, item_id: str, *, by: str) -> None:
        """Say that it is none of them: the torrent is not taken for this track again.

        Raises:
            InvalidRequest, Unknown: there is no such item.
            Conflict: the item is not held.
        """
        message = f"administrator {by} says that it is none of the torrent's files"
        async with self._database.transaction() as connection:
            row = await _held(connection, item_id)
            await lacks_source(connection, item_id, message)
            await fail_attempt(
                connection,
                item_id,
                AttemptFailed(ErrorType.NOT_FOUND, message, row["error_evidence"]),
                stages=[Stage.NEEDS_CHOICE],
                fence=None,
                policy=self._retries,
                rng=self._rng,
                actor=ACTOR,
            )
        await self._tell("ticket", item_id, by=by, decision="rejected")

    async def _tell(
        self, work: Literal["fetch", "ticket"], item_id: str, *, by: str, decision: str
    ) -> None:
        reached("decision.committed")
        log.info("item_decided", item_id=item_id, by=by, decision=decision)
        self._relay_wake.set()
        await self._bus.wake(work)


async def _held(connection: Connection, item_id: str) -> Row:
    """The item, locked, if it is one that is decided here."""
    token(item_id, what="item id")
    row = await connection.fetchrow(_LOCK, item_id)
    if row is None:
        raise Unknown(f"there is no item {item_id[:80]!r}")
    if row["stage"] == Stage.NEEDS_APPROVAL:
        raise Conflict("this one is decided at Torrentino: approve or reject its ticket there")
    if row["stage"] != Stage.NEEDS_CHOICE:
        raise Conflict(f"the item waits for no decision: it is {row['stage']}")
    return row


def _names(row: Row) -> list[str]:
    """The files of which one is to be chosen."""
    evidence = row["error_evidence"] or {}
    return [str(each["file"]) for each in evidence.get("candidates", [])]
