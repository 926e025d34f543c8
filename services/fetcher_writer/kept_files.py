"""Refused downloads: kept when they are refused, and placed when an administrator releases one."""

from __future__ import annotations

import uuid
from dataclasses import replace
from functools import partial

import structlog

from services.fetcher_writer.finish import CONVERTED, Collected, Converter, Finished
from services.fetcher_writer.media import Media
from services.fetcher_writer.store import Store
from services.fetcher_writer.work import ACTOR, Released, Work
from shared.announcer import Announcer
from shared.crashpoints import reached
from shared.db import moves, refused_files
from shared.db.refused_files import RefusedFile
from shared.errors import AttemptFailed, CorruptAudio, DependencyDown, ErrorType
from shared.media.place import discard, written
from shared.media.refused import keep_refused, kept_file, offer_kept
from shared.media.released import RELEASABLE_RULES, accepted
from shared.remedies import LACKS_TRACK, explained
from shared.states import Stage
from shared.threads import MEDIA

log = structlog.get_logger()


# What no file of the torrent is: there the file that has the track's name is kept, if one has.
_KEPT_RULES = RELEASABLE_RULES | {LACKS_TRACK}


class Keeper:
    """Keeps the collected file of a refused download; `keep_bytes` 0 keeps none."""

    def __init__(self, media: Media, *, keep_days: float, keep_bytes: int) -> None:
        self._media = media
        self._keep_days = keep_days
        self._keep_bytes = keep_bytes

    @property
    def keeps(self) -> bool:
        """Whether any file is kept."""
        return self._keep_bytes > 0

    async def set_aside(self, work: Work, failure: AttemptFailed) -> RefusedFile | None:
        """Move the file of this claim to the kept ones, and add that to the evidence.

        None: there is none, or it is not to be kept. The caller records it, or drops it.
        """
        rule = str(failure.evidence.get("rule"))
        if work.released is not None or rule not in _KEPT_RULES or not self.keeps:
            return None
        file_id, root = str(uuid.uuid4()), self._media.root
        temp = self._media.temp(work.claim)
        keep = partial(keep_refused, root.path, temp, file_id, most_bytes=self._keep_bytes)
        try:
            await MEDIA.soon(root.still_there)
            size_bytes = await MEDIA.run(keep)
        except (AttemptFailed, DependencyDown) as error:
            # The refusal is what counts.
            log.warning("refused_file_not_kept", item_id=work.claim.item_id, why=str(error))
            return None
        if size_bytes is None:
            return None
        reached("fetcher.kept")
        reason = explained(failure)
        failure.evidence |= {"kept_days": self._keep_days, "refused_file": file_id}
        return RefusedFile(
            id=file_id,
            file=str(failure.evidence.get("file", "")),
            rule=rule,
            reason=reason,
            evidence=failure.evidence,
            size_bytes=size_bytes,
        )

    async def drop(self, refused: RefusedFile) -> None:
        """Remove a file that was set aside, and that is not recorded."""
        await MEDIA.run(discard, kept_file(self._media.root.path, refused.id))


class FileGone(AttemptFailed):
    """The released file is not among the kept ones any more."""

    def __init__(self, released: Released) -> None:
        evidence = {"refused_file": released.file_id}
        super().__init__(ErrorType.NOT_FOUND, "the released file is gone", evidence)


class Releases:
    """Finishes released files: measured, and converted where that is wanted."""

    def __init__(
        self, store: Store, converter: Converter, media: Media, announcer: Announcer
    ) -> None:
        self._store = store
        self._converter = converter
        self._media = media
        self._announcer = announcer

    async def finished(self, work: Work, released: Released) -> Finished:
        """The released file at the item's temporary name, whatever verification says of it.

        Raises:
            FileGone: it was removed.
            AttemptFailed: it is no audio that can be placed, or cannot be read.
            Unavailable: a disk or ffmpeg cannot be used now.
            Stale: another worker has the item, or it was cancelled.
        """
        media, temp = self._media, self._media.temp(work.claim)
        await MEDIA.soon(media.root.still_there)
        if not await MEDIA.run(offer_kept, media.root.path, released.file_id, temp):
            raise FileGone(released)
        async with self._store.database.connection() as connection:
            await moves.advance(
                connection,
                [work.claim],
                Stage.VERIFYING,
                reason=f"measuring the file that administrator {released.by} released",
                actor=ACTOR,
            )
        await self._announcer.announce()
        spare = media.temp(work.claim, CONVERTED)
        before = await MEDIA.run(written, temp)
        found = await accepted(temp, spare, media.find_tools(), tolerance_s=media.tolerance_s)
        # It may be a link to the torrent's own file.
        if await MEDIA.run(written, temp) != before:
            raise AttemptFailed(ErrorType.STORAGE, "the file was written to while it was measured")
        reached("fetcher.accepted")
        if found.path != temp:
            return Finished(path=spare, facts=found.facts, how="converted", released=released)
        collected = Collected(path=temp, how="released", name=released.file_id)
        try:
            finished = await self._converter.finished(work.claim, collected, found.facts)
        except CorruptAudio as corrupt:
            # Too damaged to be converted, or of a kind that is not to be.
            log.warning("released_as_it_is", item_id=work.claim.item_id, why=corrupt.message)
            finished = Finished(path=temp, facts=found.facts, how="released")
        return replace(finished, released=released)

    async def fail(self, work: Work, failure: AttemptFailed) -> None:
        """Queue the item as if nothing had been released, with the reason; no attempt is used."""
        async with self._store.database.transaction() as connection:
            moved = await moves.hand_back(
                connection,
                [work.claim],
                Stage.QUEUED,
                delay_s=0.0,
                reason=f"the released file cannot be placed: {failure.message}",
                actor=ACTOR,
            )
            if moved and isinstance(failure, FileGone) and work.released is not None:
                await refused_files.forget(connection, work.released.file_id)
        await self._announcer.announce("ticket")
        log.warning("release_failed", item_id=work.claim.item_id, why=failure.message)
