"""The sender of a malformed message is told so, where the message says who it is."""

from __future__ import annotations

import uuid

from shared.announcer import Announcer
from shared.db.events import record_once
from shared.db.pool import Database
from shared.events import rejection

# A name space of ids: the same message has the same event, however often it is delivered.
_IDS = uuid.UUID("6f0d5a3e-5a0c-4a52-9d4e-8c6b8a8f1a01")


class Rejections:
    """Records `request.rejected` for messages that are buried."""

    def __init__(self, database: Database, announcer: Announcer, *, actor: str) -> None:
        self._database = database
        self._announcer = announcer
        self._actor = actor

    async def record(self, subject: str, body: bytes, *, reason: str, message_id: str) -> None:
        """Tell the sender once, if the message has a usable `request_id`.

        Raises:
            DependencyDown: PostgreSQL is away.
        """
        event = rejection(subject, body, reason)
        if event is None:
            return
        async with self._database.transaction() as connection:
            await record_once(
                connection, event, event_id=uuid.uuid5(_IDS, message_id), actor=self._actor
            )
        await self._announcer.announce()
