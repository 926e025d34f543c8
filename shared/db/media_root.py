"""Which media root belongs to this database."""

from __future__ import annotations

import uuid
from pathlib import Path

import structlog

from shared.crashpoints import reached
from shared.db.pool import Database
from shared.media.root import check_root, ignores_case, read_sentinel, write_sentinel
from shared.threads import MEDIA

log = structlog.get_logger()

_LOCK = "SELECT pg_advisory_xact_lock(hashtext('pezzottify.media_root'))"
_READ = "SELECT media_root_id FROM installation"
_INSERT = "INSERT INTO installation (media_root_id) VALUES ($1)"


# Without a placed file no other root can be mistaken for this one.
_FORGET = "DELETE FROM installation WHERE NOT EXISTS (SELECT 1 FROM media_files)"


async def forget_unused_root(database: Database) -> None:
    """Let the next root that is used be the one, unless files were placed in the last one.

    For a caller that knows that MEDIA_PATH was changed on purpose.

    Raises:
        DependencyDown: PostgreSQL is away.
    """
    async with database.connection() as connection:
        await connection.execute(_FORGET)


class MediaRoot:
    """The media root, recognised by the mark that the first service left in it."""

    def __init__(self, database: Database, path: Path) -> None:
        self._database = database
        self.path = path
        self._known: str | None = None

    async def check(self) -> None:
        """Return when the media root is there and ours; mark it when it is used first.

        Raises:
            DependencyDown: it is missing, or not the one this database knows, as when its disk
                is not mounted.
        """
        async with self._database.connection() as connection:
            known = await connection.fetchval(_READ)
        if known is None:
            known = await self._first_use()
        await MEDIA.soon(check_root, self.path, known)
        if self._known is None and await MEDIA.soon(ignores_case, self.path):
            log.warning(
                "media_root_ignores_case",
                path=str(self.path),
                effect="of two tracks whose ids differ only by case, the second is refused",
            )
        self._known = known

    async def look(self) -> None:
        """Return when the media root is there, and ours if it was ever used; marks nothing.

        Raises:
            DependencyDown: it is missing, or another one.
        """
        async with self._database.connection() as connection:
            known = await connection.fetchval(_READ)
        await MEDIA.soon(check_root, self.path, known)

    def still_there(self) -> None:
        """Return when the mark that the last check found is still there. Blocks.

        For right before a write: the disk may have been unmounted since.

        Raises:
            DependencyDown: it is not.
        """
        check_root(self.path, self._known)

    async def _first_use(self) -> str:
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK)
            known: str | None = await connection.fetchval(_READ)
            if known is None:
                # The mark first: a crash in between leaves one that the next start takes over.
                known = await MEDIA.soon(self._mark)
                reached("media.marked")
                await connection.execute(_INSERT, known)
            return known

    def _mark(self) -> str:
        found = read_sentinel(self.path)
        if found is None:
            found = str(uuid.uuid4())
            write_sentinel(self.path, found)
        return found
