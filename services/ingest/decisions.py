"""An administrator's decisions about items whose torrent has several files that could be it.

A ticket that needs approval is decided at Torrentino.
"""

from __future__ import annotations

import structlog

from services.ingest.store import ACTOR
from services.ingest.store import requests as store
from shared.announcer import Announcer
from shared.backoff import RetryPolicy
from shared.bus.subjects import Wake
from shared.crashpoints import reached
from shared.db import moves
from shared.db.bad_sources import lacks_source
from shared.db.pool import Connection, Database, Row
from shared.errors import AttemptFailed, Conflict, ErrorType, InvalidRequest, Unknown
from shared.states import Stage
from shared.untrusted import token

log = structlog.get_logger()


class Decisions:
    """Chooses a file for an item that needs it, or none."""

    def __init__(
        self,
        *,
        database: Database,
        announcer: Announcer,
        retries: RetryPolicy,
    ) -> None:
        self._database = database
        self._announcer = announcer
        self._retries = retries

    async def approve(self, item_id: str, file: object, *, by: str) -> None:
        """Choose one of the files that the item shows; it is verified as any other.

        Raises:
            InvalidRequest, Unknown: there is no such item, or the file is none of them.
            Conflict: the item needs no choice.
        """
        async with self._database.transaction() as connection:
            names = _names(await _undecided(connection, item_id))
            if not isinstance(file, str) or file not in names:
                raise InvalidRequest(
                    f'send {{"file": …}} with one of these names: {", ".join(names)[:2000]}'
                )
            reason = f"administrator {by} chose {file}"
            await moves.choose(connection, {item_id: file}, reasons={item_id: reason}, actor=ACTOR)
        await self._announce("fetch", item_id, by=by, decision="approved")

    async def reject(self, item_id: str, *, by: str) -> None:
        """Choose none of them: the torrent is not taken for this track again.

        Raises:
            InvalidRequest, Unknown: there is no such item.
            Conflict: the item needs no choice.
        """
        message = f"administrator {by} rejected all of the torrent's files"
        async with self._database.transaction() as connection:
            row = await _undecided(connection, item_id)
            told = "rejected by an administrator"
            await lacks_source(connection, item_id, message, told=told)
            await moves.fail(
                connection,
                [item_id],
                AttemptFailed(ErrorType.NOT_FOUND, message, row["error_evidence"]),
                stages=[Stage.NEEDS_CHOICE],
                policy=self._retries,
                actor=ACTOR,
                barred=True,
            )
        await self._announce("ticket", item_id, by=by, decision="rejected")

    async def _announce(self, work: Wake, item_id: str, *, by: str, decision: str) -> None:
        reached("decision.committed")
        log.info("item_decided", item_id=item_id, by=by, decision=decision)
        await self._announcer.announce(work)


async def _undecided(connection: Connection, item_id: str) -> Row:
    """The item, locked, if it needs a choice."""
    token(item_id, what="item id")
    row = await store.item_to_decide(connection, item_id)
    if row is None:
        raise Unknown(f"there is no item {item_id[:80]!r}")
    if row["stage"] == Stage.NEEDS_APPROVAL:
        raise Conflict("this item is decided at Torrentino: approve or reject its ticket there")
    if row["stage"] != Stage.NEEDS_CHOICE:
        raise Conflict(f"the item needs no decision: it is {row['stage']}")
    return row


def _names(row: Row) -> list[str]:
    """The files to choose from."""
    evidence = row["error_evidence"] or {}
    return [str(each["file"]) for each in evidence.get("candidates", [])]
