"""The list of what the catalog says of files and an operator has to correct."""

from __future__ import annotations

from typing import get_args

from services.ingest.items import Page
from services.ingest.store import reports as store
from shared.db.pool import Database
from shared.db.presence import Kind
from shared.errors import InvalidRequest

KINDS: tuple[str, ...] = get_args(Kind)


class PresenceProblems:
    """Reads `presence_problems`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, kind: str | None, *, limit: int, offset: int) -> Page:
        """The problems of a kind, or of all kinds, newest first.

        Raises:
            InvalidRequest: there is no such kind.
        """
        if kind is not None and kind not in KINDS:
            raise InvalidRequest(f"kind={kind[:40]!r}: send one of {', '.join(KINDS)}")
        async with self._database.connection() as connection:
            rows, total = await store.presence_problems(
                connection, kind, limit=limit, offset=offset
            )
        return Page(items=[dict(row) for row in rows], total=total, limit=limit, offset=offset)
