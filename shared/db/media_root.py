"""Which media root belongs to this database."""

from __future__ import annotations

from pathlib import Path

import structlog

from shared.crashpoints import reached
from shared.db.identity import installation_id
from shared.db.pool import Database
from shared.errors import Misconfigured
from shared.media.root import (
    check_root,
    ignores_case,
    is_marked_by,
    mark_of,
    read_sentinel,
    write_sentinel,
)
from shared.threads import MEDIA

log = structlog.get_logger()

_LOCK = "SELECT pg_advisory_xact_lock(hashtext('pezzottify.media_root'))"
_READ = "SELECT media_root_id FROM installation"
_INSERT = "INSERT INTO installation (media_root_id) VALUES ($1)"


# The marks of before are unknown to this database from now on.
_TAKE_OVER = """
INSERT INTO installation (media_root_id) VALUES ($1)
ON CONFLICT (one) DO UPDATE SET media_root_id = excluded.media_root_id
"""

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
            Misconfigured: it is used first, and belongs to another database.
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
                # The mark first: a crash in between leaves one that names us.
                ours = await installation_id(connection)
                known = await MEDIA.soon(self._mark, ours)
                reached("media.marked")
                await connection.execute(_INSERT, known)
            return known

    def _mark(self, ours: str) -> str:
        found = read_sentinel(self.path)
        if found is None:
            return _new_mark(self.path, ours)
        if not is_marked_by(found, ours):
            raise Misconfigured(
                "media",
                f"{self.path} belongs to another database (its mark is {found!r}): two would remove"
                " each other's temporary files. Give this one a MEDIA_PATH of its own; or, if the"
                " other one is not used any more, run `pezzottify-downloads media take-over`",
            )
        return found

    async def is_anothers(self) -> bool:
        """Whether its mark is neither known to this database nor written by it.

        Raises:
            DependencyDown: the disk or PostgreSQL is away.
        """
        async with self._database.connection() as connection:
            known: str | None = await connection.fetchval(_READ)
            ours = await installation_id(connection)
        found = await MEDIA.soon(read_sentinel, self.path)
        return known is None and found is not None and not is_marked_by(found, ours)

    async def take_over(self) -> None:
        """Make this media root belong to this database, whichever it belonged to.

        The services of another database that still use it pause: its mark is another one then.

        Raises:
            DependencyDown: it is missing, or cannot be written.
        """
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK)
            ours = await installation_id(connection)
            known = await MEDIA.soon(_new_mark, self.path, ours)
            await connection.execute(_TAKE_OVER, known)
        log.info("media_root_taken_over", path=str(self.path))


def _new_mark(path: Path, ours: str) -> str:
    made = mark_of(ours)
    write_sentinel(path, made)
    return made
