"""The tracks that disc, number and length prove, though the titles differ in all of the torrent.

The titles are in another language, or all names have one addition of another performance: "(Live)"
on a live album. Of a wrong album the lengths would not agree within a second, and neither would
those of another performance. Those of an instrumental do, so its mark is never overruled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import networkx as nx

from shared.matching.copies import choose
from shared.matching.evidence import Album, File, Pair, Position
from shared.matching.titles import Likeness
from shared.matching.vocabulary import PERFORMANCES
from shared.tracks import CatalogTrack

# Every length has to agree so well, and no other track may be as near as this.
_AGREES_S = 1.0
_NEAR_S = 2.0
_LEAST_TRACKS = 3
# So many are enough where no title can be compared, and no length is near another.
_LEAST_UNTITLED = 2
# The part of the tracks that needs a file, and of the titles that differ by their language.
_FOUND = 0.75
_TRANSLATED = 0.5


def by_place(album: Album, sure: Mapping[str, Pair]) -> dict[str, Pair]:
    """By track id: the proven pairs of the tracks that are not `sure`."""
    if len(sure) == len(album.tracks) or len(album.tracks) < _LEAST_UNTITLED:
        return {}
    placed = _placed(album)
    if placed is None:
        return {}
    foreign = {album.foreign(pair) for pair in placed.values()}
    if len(foreign) != 1:
        return {}
    (added,) = foreign
    if len(placed) < _LEAST_TRACKS:
        return _left(_untitled(album, placed), sure) if not added else {}
    if added:
        uniform = added <= PERFORMANCES and all(_titled(album, each) for each in placed.values())
        return _left(placed, sure) if uniform else {}
    return _left(_translated(album, placed), sure)


def _placed(album: Album) -> Mapping[str, Pair] | None:
    """The file of each track by disc and number; None if one does not agree, or too few do."""
    placed: dict[str, Pair] = {}
    for track in album.tracks:
        pairs = [album.pairs[track.id, file.name] for file in album.files]
        here = [
            pair for pair in pairs if pair.position is Position.MATCH and not pair.file.folder.aside
        ]
        if not here:
            continue
        found = choose(album, _like_most(album, here)).taken
        if found is None or found.off_s is None or found.off_s > _AGREES_S:
            return None
        placed[track.id] = found
    files = {pair.file.name for pair in placed.values()}
    enough = len(placed) >= max(_LEAST_UNTITLED, _FOUND * len(album.tracks))
    return placed if enough and len(files) == len(placed) else None


def _like_most(album: Album, pairs: Sequence[Pair]) -> list[Pair]:
    """Those without foreign marks, where there are any."""
    return [pair for pair in pairs if not album.foreign(pair)] or list(pairs)


def _titled(album: Album, pair: Pair) -> bool:
    """Whether the title is the track's but for the addition, or cannot be compared."""
    base = album.titles[pair.track.id].base
    return any(reading.title.base == base for reading in pair.file.readings)


def _untitled(album: Album, placed: Mapping[str, Pair]) -> Mapping[str, Pair]:
    """The pairs of a single with two songs, in another script or with numbers only."""
    unknown = all(pair.likeness is Likeness.UNKNOWN for pair in placed.values())
    apart = not _exchangeable(album, placed, near_s=2 * album.tolerance_s, rings=False)
    return placed if unknown and apart else {}


def _translated(album: Album, placed: Mapping[str, Pair]) -> Mapping[str, Pair]:
    """Those of the pairs whose places no other could have, where most titles are no track's."""
    others = [pair for pair in placed.values() if pair.likeness is Likeness.OTHER_TITLE]
    if len(others) < max(_LEAST_TRACKS, _TRANSLATED * len(placed)):
        return {}
    if any(_named_otherwise(album, pair.file, pair.track) for pair in others):
        return {}
    exchangeable = _exchangeable(album, placed, near_s=_NEAR_S)
    return {track_id: pair for track_id, pair in placed.items() if track_id not in exchangeable}


def _named_otherwise(album: Album, file: File, track: CatalogTrack) -> bool:
    """Whether the file has the title of another track of the album."""
    return any(
        album.pairs[other.id, file.name].likeness >= Likeness.NEAR
        for other in album.tracks
        if other.id != track.id
    )


def _exchangeable(
    album: Album, placed: Mapping[str, Pair], *, near_s: float, rings: bool = True
) -> set[str]:
    """The tracks whose files could be exchanged among them, by their lengths.

    Without `rings`: those whose file could be any other track's.
    """
    points_to = nx.DiGraph()
    for track_id, pair in placed.items():
        for other in placed:
            off_s = album.pairs[other, pair.file.name].off_s
            if other != track_id and off_s is not None and off_s <= near_s:
                points_to.add_edge(track_id, other)
    if not rings:
        return {*points_to}
    found = nx.strongly_connected_components(points_to)
    return {track_id for ring in found if len(ring) > 1 for track_id in ring}


def _left(placed: Mapping[str, Pair], sure: Mapping[str, Pair]) -> dict[str, Pair]:
    taken = {pair.file.name for pair in sure.values()}
    return {
        track_id: pair
        for track_id, pair in placed.items()
        if track_id not in sure and pair.file.name not in taken
    }
