"""What is wanted, what is offered, and what counts as good."""

from __future__ import annotations

from dataclasses import dataclass

from shared.media.formats import ANYTHING, Accepted

# Of a track whose length is not known.
USUAL_TRACK_S = 230.0


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An album, or a single, of the catalog; `seconds` is the sum of its tracks' lengths."""

    artist: str
    album: str
    year: int | None
    tracks: int
    seconds: float
    # The catalog calls every EP a single.
    kind: str = "album"

    @property
    def length_s(self) -> float:
        """Its length, estimated where the catalog knows none."""
        return self.seconds if self.seconds > 0 else self.tracks * USUAL_TRACK_S


@dataclass(frozen=True, kw_only=True)
class Release:
    """One entry of an indexer's answer. `size_bytes` 0 and `audio_files` None: not known."""

    title: str
    size_bytes: int
    seeders: int
    audio_files: int | None = None
    info_hash: str = ""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What is chosen first, and what is not taken at all."""

    prefer_lossless: bool = True
    min_bitrate_kbps: int = 192
    max_grab_bytes: int = 8_000_000_000
    accepted: Accepted = ANYTHING
