"""The files that a torrent offers, and what became of the wanted tracks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum


class Link(IntEnum):
    """How a CUE sheet is known to be that of a file, in rising order."""

    # They are the only ones in their folder; the names do not say so.
    ALONE = 0
    NAMED = 1
    # The file has the sheet in itself.
    EMBEDDED = 2


@dataclass(frozen=True, kw_only=True)
class Offered:
    """A file of the torrent, or a part of one that a CUE sheet names.

    `name` is the path in the torrent, with its folders and forward slashes. `duration_s` is None
    before the file is measured; so are channels and sample rate. Title, disc and number are those
    of the tags or of the CUE sheet; what the name says is read from it. `mapped` is Torrentino's
    confidence (0 to 1) by track number. `loudness` is the file's decoded audio in steps of
    `copies.STEP_S`, where it was asked for.
    """

    name: str
    size_bytes: int
    duration_s: float | None = None
    title: str | None = None
    disc: int | None = None
    number: int | None = None
    mapped: Mapping[int, float] = field(default_factory=dict, hash=False)
    channels: int | None = None
    sample_rate_hz: int | None = None
    loudness: Sequence[float] | None = field(default=None, hash=False, repr=False)
    # Of a part: where it begins and ends in the file; end None: the file's end.
    start_s: float | None = None
    end_s: float | None = None
    # False: the sheet does not say where it ends, only that it does before `end_s`.
    end_sure: bool = True
    link: Link | None = None

    @property
    def file_name(self) -> str:
        """The name of the file that this is, or is a part of."""
        return self.name if self.start_s is None else self.name.rpartition("#")[0]


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """Why no file is sure for a track, and the candidates for an administrator to choose from."""

    reason: str
    # Each {"file", "duration_s", "title_score", "why"}, likeliest first.
    candidates: tuple[Mapping[str, object], ...]
    # Names of files that seem to be the same: their decoded audio decides whether they are.
    to_compare: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The result for the wanted tracks, by track id; each is in exactly one of the three."""

    sure: Mapping[str, Offered]
    doubtful: Mapping[str, Doubt]
    missing: frozenset[str]
