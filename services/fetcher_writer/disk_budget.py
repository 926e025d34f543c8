"""How much may still be written to the media disk, less what is being fetched.

Fetching pauses below MIN_FREE_DISK_MB, and continues only with some more free space: so it does not
start and stop with every file. What all workers have claimed but not written yet is reserved:
`Store.claim` counts it, so that two workers do not take the same space.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.fetcher_writer.delivery.base import DeliveryName
from shared.errors import DependencyDown
from shared.media.paths import INCOMING
from shared.media.place import room_on, translated
from shared.metrics import MEDIA_FREE_BYTES
from shared.threads import MEDIA

MIB = 1024 * 1024
_MORE_TO_RESUME = 0.10
_MORE_TO_RESUME_MIB = 64
_BLOCK_BYTES = 512  # of st_blocks, whatever the filesystem's own


@dataclass(frozen=True, kw_only=True)
class Room:
    """How much a claim may take. `parts`: bytes on disk of each temporary file, by name.

    `times`: how often a file of each delivery is written; 0 where it is linked.
    """

    usable_bytes: int
    total_bytes: int
    parts: dict[str, int]
    times: Mapping[DeliveryName, int] = field(default_factory=lambda: {"incoming": 1, "torrent": 1})

    def ways(self) -> tuple[list[DeliveryName], list[int]]:
        """The names and numbers of `times`."""
        return list(self.times), list(self.times.values())


class MediaRoom:
    """The free space of the media root, compared with MIN_FREE_DISK_MB."""

    def __init__(self, media_path: Path, *, min_free_mb: int) -> None:
        self._path = media_path
        self._min_mb = min_free_mb
        self._paused = False

    async def check(self) -> tuple[int, int]:
        """Free and total bytes of the disk, when enough is free.

        Raises:
            DependencyDown: less is free than MIN_FREE_DISK_MB, or than what ends a pause.
        """
        free_bytes, total_bytes = await MEDIA.soon(room_on, self._path)
        MEDIA_FREE_BYTES.set(free_bytes)
        self._require(free_bytes // MIB)
        return free_bytes, total_bytes

    async def room(
        self, free_bytes: int, total_bytes: int, times: Mapping[DeliveryName, int]
    ) -> Room:
        """What a claim may take on a disk with so many free bytes."""
        return Room(
            usable_bytes=free_bytes - self._min_mb * MIB,
            total_bytes=total_bytes - self._min_mb * MIB,
            parts=await MEDIA.soon(self._parts),
            times=times,
        )

    def _require(self, free_mb: int) -> None:
        wanted_mb = self._resume_mb() if self._paused else self._min_mb
        self._paused = free_mb < wanted_mb
        if self._paused:
            raise DependencyDown(
                "space",
                f"{self._path} has {free_mb} MiB free, MIN_FREE_DISK_MB wants {self._min_mb};"
                f" fetching continues with {self._resume_mb()} MiB: free some space",
            )

    def _resume_mb(self) -> int:
        """What must be free to end a pause."""
        if not self._min_mb:
            return 0
        return self._min_mb + max(_MORE_TO_RESUME_MIB, round(self._min_mb * _MORE_TO_RESUME))

    def _parts(self) -> dict[str, int]:
        found = {}
        with translated("listing temporary files"), os.scandir(self._path / INCOMING) as entries:
            for entry in entries:
                if entry.name.endswith(".part"):
                    found[entry.name] = _on_disk(entry)
        return found


def _on_disk(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * _BLOCK_BYTES
    except FileNotFoundError:
        return 0  # placed or removed at this moment
