"""Which rows of the catalog get which audio_uri, one step at a time.

A pass reads files of the ledger and what the catalog says of each. Where that leads to no file, the
row gets our file's path. The rows are written in the order of the catalog, so that few of its pages
change, and marked in the ledger afterwards: a crash in between costs a second look.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from services.bridge.catalog_file import ROWS_AT_ONCE, CatalogFile, Change, Entry
from services.bridge.catalog_guard import CatalogId
from services.bridge.store import LedgerFile, Store
from services.bridge.uris import is_outside, leads_to_a_file
from shared.clock import Clock
from shared.crashpoints import reached
from shared.db.ledger import unreadable
from shared.db.media_root import MediaRoot
from shared.errors import Stale
from shared.health import Health
from shared.media.presence import NamedFile, named_file
from shared.metrics import CATALOG_ROWS
from shared.threads import MEDIA

log = structlog.get_logger()

_PAGE = 1000
# Changes that are sorted at once; each takes half a kilobyte.
_MOST_CHANGES = 100_000
_EVERY_S = 86_400.0
# How often files that cannot be published are tried again.
_AGAIN_S = 60.0

NO_TRACK = "the catalog has no such track"
NO_FILE = "its file is not in place, or is not the file that was verified"


@dataclass(kw_only=True)
class Counts:
    """What a pass did: each file is counted once, but for those that are `outside` as well."""

    checked: int = 0
    written: int = 0
    named: int = 0  # the catalog named a file that exists
    outside: int = 0  # of those, files that are not below the media root
    not_publishable: int = 0
    changed_meanwhile: int = 0


@dataclass(kw_only=True)
class _Pass:
    """How far one pass is."""

    of_all: bool
    with_reason: bool
    catalog: CatalogId | None = None
    after: str = ""
    all_read: bool = False
    # All read, or as much as is sorted at once.
    writing: bool = False
    changes: list[tuple[Change, LedgerFile]] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)


class Publisher:
    """Sets `audio_uri` of placed files whose present value leads to no file.

    Several may run at once: every write is guarded by the value that was read.
    """

    def __init__(
        self,
        *,
        store: Store,
        catalog: CatalogFile,
        root: MediaRoot,
        health: Health,
        clock: Clock,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._root = root
        self._clock = clock
        self._health = health
        # Tracks whose file was placed just now: they come first.
        self.placed: set[str] = set()
        self._pass: _Pass | None = None
        self._all_due_at = float("-inf")
        self._again_at = float("-inf")
        # The catalog that was read last, as the database has it, too.
        self._used: CatalogId | None = None

    async def run_once(self) -> int:
        """Make the next step; 0 when there is nothing to do until the next sweep.

        Raises:
            Unavailable: PostgreSQL, the catalog or the media root cannot be used now. The pass
                continues with the next call.
        """
        try:
            did = await self._publish_placed()
            return await self._step() or did
        except Stale:
            log.info("catalog_replaced")
            self._pass, self._all_due_at = None, float("-inf")
            return 1

    async def publish_all(self) -> Counts:
        """One pass over the whole ledger.

        Raises:
            Unavailable: as `run_once`.
            Stale: the catalog was replaced meanwhile.
        """
        whole = self._pass = _Pass(of_all=True, with_reason=True)
        while self._pass is whole:
            await self._advance(whole)
        return whole.counts

    async def _publish_placed(self) -> int:
        ids = set(list(self.placed)[:ROWS_AT_ONCE])
        if not ids:
            return 0
        files = await self._store.named(ids)
        now = _Pass(of_all=False, with_reason=True)
        await self._read(now, files)
        await self._write(now)
        self.placed -= ids
        if self._pass is not None:
            # It has read them as they were before.
            changes = [each for each in self._pass.changes if each[1].track_id not in ids]
            self._pass.changes = changes
        return len(ids)

    async def _step(self) -> int:
        if self._pass is None:
            await self._begin()
        assert self._pass is not None
        current = self._pass
        await self._advance(current)
        return int(self._pass is current or current.counts.checked > 0)

    async def _begin(self) -> None:
        """Choose what the next pass reads."""
        if not self._health.breaker("catalog_write").ok:
            # There may be nothing to write by which its return would be noticed.
            await self._catalog.check()
            self._health.up("catalog_write")
        now = self._clock.monotonic()
        if self._used is not None and (await self._catalog.which()).database != self._used.database:
            # A catalog that was replaced may name no file at all.
            self._all_due_at = now
        of_all, again = now >= self._all_due_at, now >= self._again_at
        if again:
            self._again_at = now + _AGAIN_S
        self._pass = _Pass(of_all=of_all, with_reason=again)

    async def _advance(self, current: _Pass) -> None:
        """Read the next page, or write the next rows; the last step ends the pass."""
        if current.writing:
            await self._write(current)
        else:
            files = await self._page(current)
            await self._read(current, files)
            current.after = files[-1].track_id if files else current.after
            current.all_read = len(files) < _PAGE
            current.writing = current.all_read or len(current.changes) >= _MOST_CHANGES
            if current.writing:
                # The first rows at the end, where they are taken off.
                current.changes.sort(key=lambda change: -change[0].rowid)
        if current.writing and not current.changes:
            current.writing = False
            if current.all_read:
                self._end(current)

    async def _page(self, current: _Pass) -> list[LedgerFile]:
        if current.of_all:
            return await self._store.all_files(after=current.after, limit=_PAGE)
        return await self._store.waiting(
            after=current.after, limit=_PAGE, with_reason=current.with_reason
        )

    async def _read(self, current: _Pass, files: Sequence[LedgerFile]) -> None:
        """Find out which of these files the catalog does not name, and mark the others."""
        if not files:
            return
        await self._root.check()
        self._health.up("media")
        current.catalog, entries = await self._find(current, files)
        named, changes = await asyncio.to_thread(self._compare, files, entries)
        unknown = {file: NO_TRACK for file in files if file.track_id not in entries}
        await self._store.found(list(named))
        await self._store.cannot(unknown)
        counts = current.counts
        counts.checked += len(files)
        counts.named += len(named)
        counts.outside += sum(is_outside(uri) for uri in named.values())
        counts.not_publishable += len(unknown)
        current.changes += changes

    async def _find(
        self, current: _Pass, files: Sequence[LedgerFile]
    ) -> tuple[CatalogId, dict[str, Entry]]:
        """The catalog, and its rows of these files."""
        if self._used is None and (known := await self._store.catalog_used()) is not None:
            self._catalog.recall(known)
        found = await self._catalog.find([f.track_id for f in files], of=current.catalog)
        self._health.up("catalog_write")
        if found.catalog != self._used:
            await self._store.use_catalog(found.catalog)
            self._used = found.catalog
        return found.catalog, found.entries

    def _compare(
        self, files: Sequence[LedgerFile], entries: Mapping[str, Entry]
    ) -> tuple[dict[LedgerFile, bytes], list[tuple[Change, LedgerFile]]]:
        """The files for which the catalog names one that exists, with its value; and the changes.

        Blocks.
        """
        named: dict[LedgerFile, bytes] = {}
        changes = []
        for file in files:
            entry = entries.get(file.track_id)
            if entry is None:
                continue
            if self._plays(file, entry.audio_uri):
                named[file] = entry.audio_uri or b""
                continue
            change = Change(
                rowid=entry.rowid,
                track_id=file.track_id,
                old_uri=entry.audio_uri,
                new_uri=file.audio_uri,
            )
            changes.append((change, file))
        return named, changes

    def _plays(self, file: LedgerFile, uri: bytes | None) -> bool:
        """Whether the catalog's value leads to a file, and not to one that is to be replaced."""
        root, broken = self._root.path, file.broken
        try:
            if broken is not None and uri == broken.audio_uri.encode():
                now = named_file(root, broken.audio_uri)
                if isinstance(now, NamedFile) and broken.is_of(now):
                    return False
            return leads_to_a_file(root, uri)
        except OSError as error:
            raise unreadable(error, f"checking the catalog's file of {file.track_id}") from error

    async def _write(self, current: _Pass) -> None:
        """Write the next rows, and mark them when they are written."""
        if not current.changes:
            return
        assert current.catalog is not None, "the changes were read from it"
        batch = current.changes[-ROWS_AT_ONCE:]
        # Before the transaction: the disk may take its time, and the server's writes wait.
        await self._root.check()
        whole = await MEDIA.run(self._whole, [file for _, file in batch])
        changes = [change for change, file in batch if file in whole]
        reached("bridge.checked")
        changed = await self._catalog.write(changes, of=current.catalog) if changes else set()
        reached("bridge.written")
        await self._store.wrote([file for file in whole if file.track_id in changed])
        await self._store.cannot({file: NO_FILE for _, file in batch if file not in whole})
        reached("bridge.marked")
        del current.changes[-len(batch) :]
        counts = current.counts
        counts.written += len(changed)
        counts.not_publishable += len(batch) - len(changes)
        counts.changed_meanwhile += len(changes) - len(changed)
        CATALOG_ROWS.inc(len(changed))

    def _whole(self, files: Sequence[LedgerFile]) -> set[LedgerFile]:
        """Those that are in place with the size that was verified. Blocks."""
        return {file for file in files if self._is_whole(file)}

    def _is_whole(self, file: LedgerFile) -> bool:
        try:
            found = os.stat(self._root.path / file.audio_uri)  # noqa: PTH116 (as uris.py)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise unreadable(error, f"checking {file.audio_uri}") from error
        return stat.S_ISREG(found.st_mode) and found.st_size == file.size_bytes

    def _end(self, current: _Pass) -> None:
        self._pass = None
        counts = current.counts
        if current.of_all:
            self._all_due_at = self._clock.monotonic() + _EVERY_S
        if current.of_all or counts.written or counts.changed_meanwhile:
            log.info("published", whole_ledger=current.of_all, **vars(counts))
