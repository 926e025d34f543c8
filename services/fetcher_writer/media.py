"""What every step on audio files needs: the media root, the programs, the tolerance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared.catalog.sqlite import Catalog
from shared.db.claims import Claim
from shared.db.media_root import MediaRoot
from shared.media.paths import temp_file
from shared.media.tools import AudioTools
from shared.media.write_check import check_writing
from shared.threads import MEDIA


@dataclass(frozen=True, kw_only=True)
class Media:
    """Lengths that differ by up to `tolerance_s` are equal.

    `find_tools` raises `Misconfigured` where ffmpeg is missing.
    """

    root: MediaRoot
    find_tools: Callable[[], AudioTools]
    tolerance_s: float
    catalog: Catalog | None = None
    """Where the files of other programs are named; None: only the ledger knows of them."""
    replace_broken: bool = False

    async def check_writing(self) -> None:
        """Return when the media root is there and files can be placed in it; see `check_writing`.

        Raises:
            DependencyDown, Misconfigured: it is not, or they cannot.
        """
        # First of all: nothing may be written below the mount point of an unmounted disk.
        await self.root.look()
        await MEDIA.run(check_writing, self.root.path)

    async def uri_of(self, track_id: str) -> str | None:
        """Where the catalog says that the track's file lies.

        Raises:
            DependencyDown: the catalog cannot be read.
        """
        if self.catalog is None:
            return None
        return (await self.catalog.audio_uris([track_id])).get(track_id)

    def temp(self, claim: Claim, number: int | None = None) -> Path:
        """Where the work on this claim writes a file; see `temp_file`."""
        return temp_file(self.root.path, claim.item_id, claim.fence, number)
