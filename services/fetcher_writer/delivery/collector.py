"""Finding and collecting the files of a ticket, with retries for slow network filesystems."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from services.fetcher_writer.delivery.base import (
    MAX_FILE_BYTES,
    DeliveredFile,
    Delivery,
    DeliveryName,
    NotThere,
)
from services.fetcher_writer.delivery.candidates import (
    audio_candidates,
    check_placed,
    cue_sheets,
    without_refused,
)
from services.fetcher_writer.work import Ticket
from shared.errors import AttemptFailed, CorruptAudio
from shared.media.formats import ANYTHING, Accepted

log = structlog.get_logger()

# A listing may lag behind what the other machine has written: NFS caches attributes for seconds.
_WAITS_S = (0.25, 0.5, 1.0, 2.0, 4.0)
_NOT_PLAYABLE = (
    "browsers play none of its files, and AUDIO_PLAYABLE=refuse accepts only what they play:"
    " AUDIO_PLAYABLE=convert converts them"
)
# More than a box with a composer's whole work has.
_MOST_CANDIDATES = 1000


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Files of a ticket: what may be audio, the likeliest first, and CUE sheets."""

    audio: tuple[DeliveredFile, ...]
    sheets: tuple[DeliveredFile, ...] = ()


class Collector:
    """Reads and collects the files of tickets through the delivery that each ticket names."""

    def __init__(
        self,
        deliveries: Mapping[DeliveryName, Delivery],
        *,
        accepted: Accepted = ANYTHING,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.deliveries = deliveries
        self._accepted = accepted
        self._sleep = sleep

    async def located(self, ticket: Ticket) -> Ticket:
        """The same ticket, with the path where its data are.

        Raises:
            AttemptFailed: they are not there.
            Unavailable: the place cannot be read now.
        """
        delivery = self.deliveries[ticket.delivery]
        if ticket.delivery == "incoming":
            return ticket  # it has the path that Torrentino reports; `candidates` reads it
        await delivery.check()
        path = await delivery.locate(ticket.path, ticket.size_bytes, exact=ticket.in_the_way)
        return replace(ticket, path=path)

    async def candidates(self, ticket: Ticket) -> Candidates:
        """The files that may be audio, at least one, and the CUE sheets.

        Raises:
            AttemptFailed: the files are not those that Torrentino reports as placed.
            CorruptAudio: none of the files may be audio.
        """
        files = await self._placed(ticket)
        possible = audio_candidates(files)
        wanted = without_refused(possible, self._accepted)
        audio = [file for file in wanted if file.size_bytes <= MAX_FILE_BYTES]
        if not audio:
            rule, message = "not_audio", "the ticket placed no audio file"
            if possible and not wanted:
                rule, message = "not_playable", _NOT_PLAYABLE
            elif possible:
                rule, message = "too_large", f"the ticket placed {MAX_FILE_BYTES} bytes and more"
            raise CorruptAudio(message, {"rule": rule, "files": [f.name[:500] for f in files[:20]]})
        return Candidates(audio=tuple(audio[:_MOST_CANDIDATES]), sheets=tuple(cue_sheets(files)))

    async def _placed(self, ticket: Ticket) -> list[DeliveredFile]:
        if ticket.files_placed and ticket.final_size_bytes == 0:
            raise CorruptAudio(
                "what the ticket placed is empty",
                {"rule": "too_small", "size_bytes": 0, "files_placed": ticket.files_placed},
            )
        delivery = self.deliveries[ticket.delivery]
        # An invisible folder is a wrong setting, and must not count against the ticket.
        await delivery.check()
        for wait_s in (*_WAITS_S, None):
            files = await delivery.files(ticket.path)
            try:
                return check_placed(
                    files,
                    files_placed=ticket.files_placed,
                    final_size_bytes=ticket.final_size_bytes,
                    names=ticket.processed_files,
                    beside=wait_s is None,
                )
            except AttemptFailed as failure:
                if wait_s is not None:
                    await self._sleep(wait_s)
                elif files or await delivery.exists(ticket.path):
                    raise
                else:
                    evidence = failure.evidence | {"path": ticket.path}
                    raise NotThere(f"there is no {ticket.path} here", evidence) from failure
        raise AssertionError("the last turn returns or raises")

    async def check(self) -> None:
        """Return when every place of finished files is visible; see `Delivery.check`."""
        for delivery in self.deliveries.values():
            await delivery.check()

    async def taking_room(self, media_path: Path) -> frozenset[DeliveryName]:
        """The deliveries whose files take space on the media disk: see `Delivery.takes_room`."""
        return frozenset(
            [
                name
                for name, delivery in self.deliveries.items()
                if await delivery.takes_room(media_path)
            ]
        )

    async def collect(self, ticket: Ticket, file: DeliveredFile, temp: Path) -> str:
        """Put the whole file at `temp`, on disk; returns how: see `Delivery.collect`."""
        return await self.deliveries[ticket.delivery].collect(ticket.path, file, temp)

    async def remove(self, dest_path: str) -> bool:
        """Remove a ticket's incoming folder; True when there is nothing left to do for it."""
        try:
            await self.deliveries["incoming"].remove(dest_path)
        except AttemptFailed as failure:
            # A path of another configuration, not below this root: it is left alone.
            log.warning("incoming_folder_left", dest_path=dest_path, why=failure.message)
        return True
