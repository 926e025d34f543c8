"""The track's file: one that it has already, or the finished one that gets its final name.

The file gets its name while the item's row is locked by our fence, in the transaction that
completes the item. docs/architecture.md, "Placing a file", goes through each crash.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import structlog

from services.fetcher_writer.finish import Finished, Original
from services.fetcher_writer.media import Media
from services.fetcher_writer.store import hold
from services.fetcher_writer.work import ACTOR, Work
from shared.announcer import Announcer
from shared.crashpoints import reached
from shared.db import refused_files
from shared.db.ledger import Placed, complete, unreadable
from shared.db.media_root import MediaRoot
from shared.db.pool import Connection, Database
from shared.db.presence import Notes, Problem, Seen, known, note
from shared.errors import AttemptFailed, DependencyDown, ErrorType
from shared.media.paths import audio_uri, source_uri, taken_in_another_case
from shared.media.place import discard, publish, translated
from shared.media.placed_file import Whole
from shared.media.presence import NamedFile, named_file
from shared.media.refused import kept_file, move_aside
from shared.media.released import measured, same_file
from shared.metrics import BYTES_PLACED, FILES_PLACED
from shared.present import kept, present
from shared.threads import MEDIA

log = structlog.get_logger()

# Each turn moves aside the broken file that has taken the name. More turns mean a fault.
_MOST_TURNS = 3


class Publisher:
    """Completes items with the files under `audio/`; sets `cleanup_wake` when one is published."""

    def __init__(
        self,
        *,
        database: Database,
        media: Media,
        announcer: Announcer,
        cleanup_wake: asyncio.Event,
    ) -> None:
        self.database = database
        self.media = media
        self._announcer = announcer
        self._cleanup_wake = cleanup_wake

    async def placed_already(self, work: Work) -> Whole | None:
        """The whole file that the track has: in the ledger, in the catalog, or under its name.

        Broken files under the track's own name are moved aside.

        Raises:
            Stale: there is a broken file, and the item is another worker's.
            AttemptFailed: REJECTED, the catalog names a broken file, which is not to be replaced;
                a file there cannot be read.
            Unavailable: the disk, ffmpeg or the catalog cannot be used now.
        """
        media = self.media
        seen, row = await self._look(work)
        if (released := await self._released_already(row)) is not None:
            return released
        if seen.unreadable and seen.broken is not None:
            # Perhaps for a moment only, so it is not refused at once.
            path = str(media.root.path / seen.broken.audio_uri)
            raise DependencyDown("media", f"{path}: {seen.broken.detail}", path=path)
        found = await present(
            media.root.path,
            seen,
            expected_ms=work.duration_ms,
            tolerance_s=media.tolerance_s,
            tools=media.find_tools(),
        )
        reached("fetcher.looked")
        if found.refused:
            async with self.database.transaction() as connection:
                # A worker that lost the item may have seen a file that is replaced by now.
                await hold(connection, work.claim)
                await MEDIA.run(move_aside, media.root.path, found.refused)
                reached("fetcher.moved_aside")
        if found.broken is not None:
            await self._note_broken(found.broken)
            if found.whole is None and not media.replace_broken:
                raise AttemptFailed(ErrorType.REJECTED, str(kept(found.broken)))
        return found.whole

    async def _released_already(self, row: Placed | None) -> Whole | None:
        """The ledger's file, if it was released and is unchanged: it does not have to verify."""
        if row is None or row.released_by is None:
            return None
        root = self.media.root.path
        try:
            file = await MEDIA.soon(named_file, root, row.audio_uri)
            if not isinstance(file, NamedFile) or not await same_file(file.path, row.sha256):
                return None
        except OSError as error:
            raise unreadable(error, f"reading {row.audio_uri}") from error
        facts = await measured(
            file.path, self.media.find_tools(), tolerance_s=self.media.tolerance_s
        )
        return Whole(uri=row.audio_uri, facts=facts)

    async def _look(self, work: Work) -> tuple[Seen, Placed | None]:
        """What there is for the track, by the status of the files, and the ledger's row.

        The ledger's file is verified too.
        """
        uris = {work.track_id: await self.media.uri_of(work.track_id)}
        async with self.database.connection() as connection:
            rows = await known(connection, [work.track_id])
        look = partial(rows.look, self.media.root.path, uris, trusted=False)
        return (await MEDIA.soon(look))[work.track_id], rows.ledger.get(work.track_id)

    async def _note_broken(self, broken: Problem) -> None:
        async with self.database.transaction() as connection:
            await note(connection, Notes(problems=[broken]))

    async def adopt(self, work: Work, whole: Whole) -> None:
        """Complete the item with the file that was placed already."""
        reached("fetcher.adopting")
        async with self.database.transaction() as connection:
            adopted = await complete(
                connection,
                work.claim.item_id,
                whole.facts,
                fence=work.claim.fence,
                reason="a whole file was in place already",
                actor=ACTOR,
                uri=whole.uri,
            )
        reached("fetcher.adopted")
        await self._announcer.announce()
        if adopted:
            FILES_PLACED.labels("adopted").inc()
            log.info("file_adopted", item_id=work.claim.item_id, track_id=work.track_id)

    async def publish(self, work: Work, finished: Finished) -> None:
        """Give the file its final name and complete the item; a whole file there is adopted.

        Raises:
            Stale: another worker has the item, or it was cancelled.
            AttemptFailed: REJECTED, another track has the name for ever.
            Unavailable: the disk or PostgreSQL cannot be used now.
        """
        for _ in range(_MOST_TURNS):
            if await self._publish(work, finished):
                return
            placed = await self.placed_already(work)
            if placed is not None:
                await self.adopt(work, placed)
                return
        raise DependencyDown("media", f"the name of {work.track_id} is taken again and again")

    async def _publish(self, work: Work, finished: Finished) -> bool:
        """False: the name is taken, or another file may be the track's."""
        root, facts = self.media.root, finished.facts
        final = root.path / audio_uri(work.track_id, facts.ext)
        async with self.database.transaction() as connection:
            # From here to the commit no other worker can move this item or place a file for it.
            await hold(connection, work.claim)
            reached("fetcher.locked")
            if await self._has_another(connection, work):
                return False
            if finished.original is not None:
                # Before the name: a completed item would not collect the original again.
                await MEDIA.run(_keep, root, work.track_id, finished.original)
            if not await MEDIA.run(_give_name, root, finished.path, final):
                return False
            reached("fetcher.named")
            placed = await complete(
                connection,
                work.claim.item_id,
                facts,
                fence=work.claim.fence,
                reason=_reason(finished),
                actor=ACTOR,
                released_by=finished.released.by if finished.released else None,
            )
            if finished.released is not None:
                await refused_files.forget(connection, finished.released.file_id)
            assert placed, "the row is locked by our fence"
            reached("fetcher.completed")
        reached("fetcher.committed")
        if finished.released is not None:
            await MEDIA.run(discard, kept_file(root.path, finished.released.file_id))
        await self._announcer.announce()
        # A linked file shares its content with the incoming one, which should go soon.
        self._cleanup_wake.set()
        FILES_PLACED.labels(finished.how).inc()
        BYTES_PLACED.inc(facts.size_bytes)
        log.info("file_placed", item_id=work.claim.item_id, path=str(final), how=finished.how)
        return True

    async def _has_another(self, connection: Connection, work: Work) -> bool:
        """Whether a file was recorded or named since it was checked that there is none."""
        uris = {work.track_id: await self.media.uri_of(work.track_id)}
        rows = await known(connection, [work.track_id])
        seen = await MEDIA.soon(rows.look, self.media.root.path, uris)
        now = seen[work.track_id]
        return now.recorded is not None or bool(now.candidates)


def _reason(finished: Finished) -> str:
    if finished.released is None:
        return "the file is in place"
    return f"the file that administrator {finished.released.by} released is in place"


# --- in threads


def _give_name(root: MediaRoot, temp: Path, final: Path) -> bool:
    """Give the file its final name; False when that is taken.

    Raises:
        AttemptFailed: REJECTED, another track has the name for ever.
        DependencyDown: the disk cannot be used now.
    """
    root.still_there()
    if publish(temp, final):
        return True
    with translated("reading the folder of a name that is taken"):
        other = taken_in_another_case(final)
    if other is not None:
        raise AttemptFailed(
            ErrorType.REJECTED,
            f"{other} has the place of {final.name}: the filesystem of MEDIA_PATH does not"
            " tell upper from lower case, so it cannot hold both",
            {"path": str(final), "taken_by": other},
        )
    return False


def _keep(root: MediaRoot, track_id: str, original: Original) -> None:
    """Keep the file that the finished one was made from.

    Raises:
        DependencyDown: the disk cannot be used now.
    """
    root.still_there()
    # An earlier turn, which found the name taken, has kept it already.
    if original.path.exists():
        publish(original.path, root.path / source_uri(track_id, original.ext), replace=True)
        reached("fetcher.source_kept")
