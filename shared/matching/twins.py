"""One recording that the catalog has twice: one file serves both ids.

An album and its single, or an album that the catalog took in twice, may be wanted together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared.matching.evidence import Pair
from shared.matching.titles import fold, title_of
from shared.tracks import CatalogTrack

_SAME_LENGTH_MS = 1000


def without_twins(
    tracks: Sequence[CatalogTrack],
) -> tuple[list[CatalogTrack], Mapping[str, Sequence[CatalogTrack]]]:
    """The tracks without the twins of others, and those twins by the id of the track that stays.

    Twins have the same artist, title, disc and number, and known lengths within a second. At
    another place of an album the same title is another track: a reprise has its own file.
    """
    kept: list[CatalogTrack] = []
    twins: dict[str, list[CatalogTrack]] = {}
    by_name: dict[object, list[CatalogTrack]] = {}
    for track in sorted(tracks, key=lambda track: track.id):
        title = title_of(track.title)
        place = (track.disc or 1, track.number, title.core, title.marks, fold(track.artist or ""))
        alike = by_name.setdefault(place, [])
        first = next((other for other in alike if _same_length(other, track)), None)
        if first is None or track.number is None:
            alike.append(track)
            kept.append(track)
        else:
            twins.setdefault(first.id, []).append(track)
    return kept, twins


def serves(pair: Pair, twin: CatalogTrack) -> bool:
    """Whether the file of a track may be its twin's as well, by its length."""
    duration_s = pair.file.offered.duration_s
    if duration_s is None or twin.duration_ms is None:
        return True
    return abs(twin.duration_ms / 1000 - duration_s) <= pair.tolerance_s


def _same_length(one: CatalogTrack, other: CatalogTrack) -> bool:
    if one.duration_ms is None or other.duration_ms is None:
        return False
    return abs(one.duration_ms - other.duration_ms) <= _SAME_LENGTH_MS
