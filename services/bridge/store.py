"""The ledger as publishing reads and marks it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from services.bridge.catalog_guard import CatalogId
from shared.db.pool import Database, Row
from shared.db.presence import Problem

# With the file of the track that is known to be broken and is to be replaced, if there is one.
_FILES = """
SELECT f.track_id, f.audio_uri, f.size_bytes,
       p.audio_uri AS broken_uri, p.detail AS broken_detail, p.size_bytes AS broken_bytes,
       p.modified_ns AS broken_ns
  FROM media_files f
  LEFT JOIN presence_problems p
         ON $1 AND p.track_id = f.track_id AND p.kind = 'broken' AND p.audio_uri <> f.audio_uri
"""
# Of all files, or of those that the catalog was not seen to name.
_ALL = f"{_FILES} WHERE f.track_id > $2 ORDER BY f.track_id LIMIT $3"
_WAITING = f"""
{_FILES}
 WHERE f.track_id > $2 AND f.published_at IS NULL AND ($4 OR f.not_playable IS NULL)
 ORDER BY f.track_id LIMIT $3
"""
_NAMED = f"{_FILES} WHERE f.track_id = ANY($2)"

# Each statement is guarded by the path: a file that was placed elsewhere meanwhile is another one.
_WROTE = """
UPDATE media_files f SET published_at = now(), playable_at = NULL, not_playable = NULL
  FROM unnest($1::text[], $2::text[]) AS p (track_id, audio_uri)
 WHERE f.track_id = p.track_id AND f.audio_uri = p.audio_uri
"""
_FOUND = """
UPDATE media_files f SET published_at = now(), not_playable = NULL
  FROM unnest($1::text[], $2::text[]) AS p (track_id, audio_uri)
 WHERE f.track_id = p.track_id AND f.audio_uri = p.audio_uri AND f.published_at IS NULL
"""
_CANNOT = """
UPDATE media_files f SET published_at = NULL, playable_at = NULL, not_playable = p.reason
  FROM unnest($1::text[], $2::text[], $3::text[]) AS p (track_id, audio_uri, reason)
 WHERE f.track_id = p.track_id AND f.audio_uri = p.audio_uri
   AND (f.published_at IS NOT NULL OR f.not_playable IS DISTINCT FROM p.reason)
"""


_USED = "SELECT database_file, shm_file FROM catalog_used"
_USE = """
INSERT INTO catalog_used (database_file, shm_file) VALUES ($1, $2)
ON CONFLICT (singleton) DO UPDATE
   SET database_file = excluded.database_file, shm_file = excluded.shm_file, used_at = now()
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerFile:
    """A file of the ledger, by where it lies and how long it was.

    `broken`: another file of the track, which this one replaces.
    """

    track_id: str
    audio_uri: str
    size_bytes: int
    broken: Problem | None = None


class Store:
    """Reads files page by page, and writes down what the catalog says of them.

    Every method raises DependencyDown when PostgreSQL is away.
    """

    def __init__(self, database: Database, *, replace_broken: bool = False) -> None:
        """`replace_broken`: whether files take the place of those that are known to be broken."""
        self._database = database
        self._replace_broken = replace_broken

    async def all_files(self, *, after: str, limit: int) -> list[LedgerFile]:
        """The files after this track id, by track id."""
        return await self._files(_ALL, after, limit)

    async def waiting(self, *, after: str, limit: int, with_reason: bool) -> list[LedgerFile]:
        """Those of them that are not published; `with_reason`: also those that cannot be."""
        return await self._files(_WAITING, after, limit, with_reason)

    async def named(self, track_ids: Collection[str]) -> list[LedgerFile]:
        """The files of these tracks."""
        return await self._files(_NAMED, list(track_ids))

    async def wrote(self, files: Sequence[LedgerFile]) -> None:
        """The catalog names these files, because the bridge has just written it."""
        await self._mark(_WROTE, files)

    async def found(self, files: Sequence[LedgerFile]) -> None:
        """The catalog names a file for these tracks."""
        await self._mark(_FOUND, files)

    async def cannot(self, reasons: Mapping[LedgerFile, str]) -> None:
        """These cannot be published, and why."""
        await self._mark(_CANNOT, list(reasons), list(reasons.values()))

    async def catalog_used(self) -> CatalogId | None:
        """The catalog that a bridge used last; None before the first."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_USED)
        if row is None:
            return None
        return CatalogId(database=row["database_file"], shm=row["shm_file"])

    async def use_catalog(self, catalog: CatalogId) -> None:
        """Remember it for the processes after this one."""
        async with self._database.connection() as connection:
            await connection.execute(_USE, catalog.database, catalog.shm)

    async def _files(self, sql: str, *parameters: object) -> list[LedgerFile]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(sql, self._replace_broken, *parameters)
        return [_file(row) for row in rows]

    async def _mark(self, sql: str, files: Sequence[LedgerFile], *more: object) -> None:
        if not files:
            return
        async with self._database.connection() as connection:
            await connection.execute(
                sql, [file.track_id for file in files], [file.audio_uri for file in files], *more
            )


def _file(row: Row) -> LedgerFile:
    broken = None
    if row["broken_uri"] is not None and row["broken_ns"] is not None:
        broken = Problem(
            track_id=row["track_id"],
            audio_uri=row["broken_uri"],
            kind="broken",
            detail=row["broken_detail"],
            size_bytes=row["broken_bytes"],
            modified_ns=row["broken_ns"],
        )
    return LedgerFile(
        track_id=row["track_id"],
        audio_uri=row["audio_uri"],
        size_bytes=row["size_bytes"],
        broken=broken,
    )
