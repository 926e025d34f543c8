"""What the sweep for strays reads and writes."""

from __future__ import annotations

from collections.abc import Collection

from shared.db import download_moves
from shared.db.identity import installation_id
from shared.db.pool import Database, Row
from shared.torrentino.model import RemoteTicket

_KNOWN = """
SELECT dest_path, torrentino_id, state FROM tickets
 WHERE dest_path = ANY($1)
"""


class StrayStore:
    """The rows of tickets that are found at Torrentino."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reopen(self, stray: RemoteTicket) -> bool:
        """Withdraw a ticket whose row was closed too early; False when the row is another's."""
        async with self._database.connection() as connection:
            return await download_moves.reopen(connection, stray.dest_path, torrentino_id=stray.id)

    async def installation(self) -> str:
        """Whose tickets are ours."""
        async with self._database.connection() as connection:
            return await installation_id(connection)

    async def withdraw_lost(self, lost: RemoteTicket) -> bool:
        """Withdraw a ticket in a folder of ours of which there is no row; False: there is one."""
        download_id = lost.dest_path.rpartition("/")[2]
        async with self._database.transaction() as connection:
            return await download_moves.withdraw_lost(
                connection, download_id, lost.dest_path, torrentino_id=lost.id
            )

    async def withdraw_orphans(self) -> int:
        """Withdraw the tickets that no active item waits for; returns how many."""
        async with self._database.connection() as connection:
            return await download_moves.withdraw_unwanted(connection, None, mode="tickets")

    async def known(self, dest_paths: Collection[str]) -> dict[str, Row]:
        """Our tickets with these paths, by path."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_KNOWN, list(dest_paths))
        return {row["dest_path"]: row for row in rows}
