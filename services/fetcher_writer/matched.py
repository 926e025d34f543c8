"""What the matching of files says of one track: its file, a doubt, or that it has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.fetcher_writer.delivery.base import DeliveredFile
from shared.errors import AttemptFailed, DownloadsError, ErrorType
from shared.matching.model import Doubt, Offered
from shared.remedies import LACKS_TRACK


class NeedsChoice(DownloadsError):
    """Several files may be the track: an administrator has to choose one."""

    def __init__(self, doubt: Doubt) -> None:
        super().__init__(doubt.reason)
        self.doubt = doubt


@dataclass(frozen=True, kw_only=True)
class Found:
    """The file that is the track; `offer` is the part of it, if it holds several tracks."""

    file: DeliveredFile
    offer: Offered


class LacksTrack(AttemptFailed):
    """The torrent does not have the track; the evidence lists the files that it has."""

    def __init__(
        self,
        title: str,
        files: Sequence[Mapping[str, object]],
        *,
        duration_ms: int | None,
        tolerance_s: float,
    ) -> None:
        evidence = {
            "rule": LACKS_TRACK,
            "files": [dict(file) for file in files],
            "expected_s": duration_ms / 1000 if duration_ms else None,
            "tolerance_s": tolerance_s,
        }
        message = f"{title} does not have this track"[:500]
        super().__init__(ErrorType.NOT_FOUND, message, evidence)
        # The file that has the track's name, and another length.
        self.called_so: Found | None = None
