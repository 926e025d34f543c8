"""Getting at the files of one ticket, with the patience that network filesystems need."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from services.fetcher_writer.delivery import (
    MAX_FILE_BYTES,
    DeliveredFile,
    Delivery,
    audio_candidates,
    check_placed,
)
from services.fetcher_writer.store import Work
from shared.errors import AttemptFailed, CorruptAudio

log = structlog.get_logger()

# A listing may lag behind what the other side has written (NFS caches attributes for seconds).
_WAITS_S = (0.25, 0.5, 1.0, 2.0, 4.0)
# A ticket asks for one track; a folder with more candidates than this is something else.
_MOST_CANDIDATES = 20


class Collector:
    """Finds, among what a ticket placed, the files that may be the item's audio."""

    def __init__(
        self, delivery: Delivery, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._delivery = delivery
        self._sleep = sleep

    async def candidates(self, work: Work) -> list[DeliveredFile]:
        """The files worth verifying, likeliest first, at least one.

        Raises:
            AttemptFailed: what lies there is not what Torrentino says it placed.
            CorruptAudio: none of the files is audio.
        """
        files = await self._placed(work)
        possible = audio_candidates(files)
        candidates = [file for file in possible if file.size_bytes <= MAX_FILE_BYTES]
        if not candidates:
            rule, message = "not_audio", "the ticket placed no audio file"
            if possible:
                rule, message = "too_large", f"the ticket placed {MAX_FILE_BYTES} bytes and more"
            raise CorruptAudio(message, {"rule": rule, "files": [f.name[:500] for f in files[:20]]})
        return candidates[:_MOST_CANDIDATES]

    async def _placed(self, work: Work) -> list[DeliveredFile]:
        if work.files_placed and work.final_size_bytes == 0:
            raise CorruptAudio(
                "what the ticket placed is empty",
                {"rule": "too_small", "size_bytes": 0, "files_placed": work.files_placed},
            )
        # The folder is looked at first: "not visible" is our setting, not the ticket's failure.
        await self.check()
        for wait_s in (*_WAITS_S, None):
            files = await self._delivery.files(work.dest_path)
            try:
                check_placed(
                    files,
                    files_placed=work.files_placed,
                    final_size_bytes=work.final_size_bytes,
                )
            except AttemptFailed:
                if wait_s is None:
                    raise
                await self._sleep(wait_s)
            else:
                break
        return files

    async def check(self) -> None:
        """Return when the place of finished files is visible; see `Delivery.check`."""
        await self._delivery.check()

    async def takes_room(self, media_path: Path) -> bool:
        """See `Delivery.takes_room`."""
        return await self._delivery.takes_room(media_path)

    async def collect(self, work: Work, file: DeliveredFile, temp: Path) -> str:
        """Put the file at `temp`, whole and on disk; returns how."""
        return await self._delivery.collect(work.dest_path, file, temp)

    async def remove(self, dest_path: str) -> bool:
        """Remove a ticket's folder; true when it needs no further look."""
        try:
            await self._delivery.remove(dest_path)
        except AttemptFailed as failure:
            # A path from another configuration: not below our root, so not ours to touch.
            log.warning("incoming_folder_left", dest_path=dest_path, why=failure.message)
        return True
