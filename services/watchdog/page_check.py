"""What one page of the catalog has: the tracks with a file, in the queue, and missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from services.watchdog.store import Findings
from shared.catalog.models import Track
from shared.db.presence import Known, Notes, Seen, notes

Group = Literal["active", "present", "unrecorded", "broken", "missing"]


@dataclass(frozen=True, kw_only=True)
class PageCheck:
    """The tracks of a page, by the status of their files; each counts in one group.

    With `replace_broken` a track whose file is known to be broken counts as missing.
    """

    tracks: Sequence[Track]
    before: Known
    active: AbstractSet[str]
    seen: Mapping[str, Seen]
    replace_broken: bool

    @property
    def missing(self) -> list[Track]:
        """The tracks that have no file, and are not in the queue."""
        return [track for track in self.tracks if self._group(track) == "missing"]

    @property
    def to_adopt(self) -> list[Track]:
        """The tracks with a file that the ledger lacks, also of those in the queue."""
        return [track for track in self.tracks if self._lacks(self.seen[track.id])]

    def _group(self, track: Track) -> Group:
        seen = self.seen[track.id]
        if track.id in self.active:
            return "active"
        if seen.recorded or seen.candidates:
            return "present"
        if seen.unrecorded:
            return "unrecorded"
        return "broken" if seen.broken and not self.replace_broken else "missing"

    @staticmethod
    def _lacks(seen: Seen) -> bool:
        return seen.recorded is None and bool(seen.candidates or seen.unrecorded)

    def findings(self, *, missing: int) -> Findings:
        """The counts, with the number of missing tracks that the scan's limit leaves."""
        groups = Counter(self._group(track) for track in self.tracks)
        problems = [seen.problem for seen in self.seen.values() if seen.problem]
        return Findings(
            scanned=len(self.tracks),
            present=groups["present"],
            active=groups["active"],
            missing=missing,
            unrecorded=groups["unrecorded"],
            to_adopt=len(self.to_adopt),
            broken=sum(problem.kind == "broken" for problem in problems),
            refused=sum(problem.kind == "outside" for problem in problems),
        )

    def notes(self) -> Notes:
        """What the database has to learn of these tracks."""
        albums = {track.id: track.album_id for track in self.tracks}
        return notes(self.before, self.seen.values(), albums=albums)
