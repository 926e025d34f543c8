"""What an item and a tracklist keep of the catalog, within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from shared.catalog.models import Track

_MOST_TEXT = 1000


def track_columns(tracks: Sequence[Track]) -> tuple[list[object], ...]:
    """The snapshot of the catalog that an item keeps, column by column."""
    return (
        [track.album_id for track in tracks],
        [clipped(track.name) for track in tracks],
        [clipped(", ".join(track.artists)) or None for track in tracks],
        [clipped(track.artists[0]) if track.artists else None for track in tracks],
        [clipped(track.album_name) for track in tracks],
        [clipped(track.album_artist) for track in tracks],
        [_number(track.disc_number, bits=31) for track in tracks],
        [_number(track.track_number, bits=31) for track in tracks],
        [_number(track.duration_ms, bits=40) for track in tracks],
        [clipped(track.isrc) for track in tracks],
    )


T = TypeVar("T", str, str | None)


def clipped(text: T) -> T:
    """A text of the catalog, which bounds nothing, as we keep and send it."""
    return text if text is None else text[:_MOST_TEXT]


def _number(value: int | None, *, bits: int) -> int | None:
    """A number of the catalog; one that no track can have says nothing."""
    return value if value is not None and 0 <= value < 2**bits else None
