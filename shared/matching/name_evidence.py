"""What the files' names claim, and what measured lengths make of that.

A name claims a track by title, or by number where it has no title. A length beyond the tolerance
refutes it. When names went round among the files (3 and 4 exchanged), each of the ring is refuted
and each fits another's track: then the lengths are believed. Where each of a ring is permitted as
named and yet clearly fits another better, names and lengths contradict each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx

from shared.matching.evidence import Album, File, Pair, Position
from shared.matching.titles import Likeness

# Of the tolerance: beyond the first a length fits badly, within the second it fits well.
_BADLY = 0.5
_WELL = 0.25
# Of the files that are only numbered, so many must have the length of their number's track.
_FITTING = 0.75
# Two exchanged names are a slip; more than two, and that many of all, are no names.
_SLIPS = 2
_REFUTED = 0.25
# Fewer tracks than that agree with a wrong album's numbers by chance.
_ENOUGH_TRACKS = 3


@dataclass(frozen=True, kw_only=True)
class NameEvidence:
    """What is believed of the names of a torrent's files."""

    # The track that each file's name is of, by file name, if it is clearly of one.
    of_file: Mapping[str, Pair]
    # Pairs (track id, file name) whose names went round, so that lengths decide.
    exchanged: frozenset[tuple[str, str]]
    # Tracks whose names and lengths contradict each other.
    contradicted: frozenset[str]
    # Whether names are believed where lengths do not tell: not if many are refuted.
    names_hold: bool
    # Whether a number alone says which track a file is; with a slip, only where no other track
    # has the file's length.
    numbers_hold: bool
    numbers_slip: bool
    # Files of numbers alone that nobody has measured: until then numbers prove little.
    unmeasured: tuple[File, ...]

    def refuted(self, file: File) -> bool:
        claim = self.of_file.get(file.name)
        return claim is not None and not claim.permitted


def claims_of(album: Album) -> NameEvidence:
    """What the names claim, and which of it the lengths leave standing."""
    of_file = {file.name: claim for file in album.files if (claim := _claim(album, file))}
    exchanged, contradicted = _rings(album, of_file)
    numbered = [claim for claim in of_file.values() if claim.likeness is Likeness.UNKNOWN]
    return NameEvidence(
        of_file=of_file,
        exchanged=exchanged,
        contradicted=contradicted,
        names_hold=_names_hold(album, list(of_file.values())),
        numbers_hold=_numbers_hold(album, numbered),
        numbers_slip=not all(claim.permitted for claim in numbered),
        unmeasured=tuple(claim.file for claim in numbered if not claim.file.measured),
    )


def nameless(album: Album, file: File) -> bool:
    """Whether the file's names tell no title that is any of the album's, as far as one can say."""
    alike = max(album.pairs[track.id, file.name].likeness for track in album.tracks)
    return alike is Likeness.UNKNOWN


def _claim(album: Album, file: File) -> Pair | None:
    """The one track that the name is of: by the best title, among equal ones by the number."""
    pairs = [album.pairs[track.id, file.name] for track in album.tracks]
    best = max(pair.likeness for pair in pairs)
    if best is Likeness.UNKNOWN:
        named = [
            pair for pair in pairs if pair.likeness is best and pair.position is Position.MATCH
        ]
    elif best >= Likeness.NEAR:
        named = [pair for pair in pairs if pair.likeness is best]
        place = max(pair.position for pair in named)
        named = [pair for pair in named if pair.position is place]
    else:
        return None
    return named[0] if len(named) == 1 else None


def _rings(
    album: Album, of_file: Mapping[str, Pair]
) -> tuple[frozenset[tuple[str, str]], frozenset[str]]:
    """The exchanged pairs, and the tracks whose names and lengths contradict each other."""
    points_to = nx.DiGraph()
    for claim in of_file.values():
        limit_s = _suiting_s(claim, album.tolerance_s)
        for track in album.tracks:
            off_s = album.pairs[track.id, claim.file.name].off_s
            if limit_s is not None and off_s is not None and off_s <= limit_s:
                points_to.add_edge(claim.track.id, track.id)
    exchanged: set[tuple[str, str]] = set()
    contradicted: set[str] = set()
    for ring in nx.strongly_connected_components(points_to):
        claimed = [claim for claim in of_file.values() if claim.track.id in ring]
        if len(ring) < 2:
            continue
        if any(claim.permitted for claim in claimed):
            contradicted |= ring
        else:
            exchanged |= _fitting(album, ring, claimed)
    return frozenset(exchanged), frozenset(contradicted)


def _suiting_s(claim: Pair, tolerance_s: float) -> float | None:
    """How near another track's length must be to the file's to point there; None: it fits here."""
    if not claim.permitted:
        return tolerance_s
    if claim.off_s is not None and claim.off_s > _BADLY * tolerance_s:
        return _WELL * tolerance_s
    return None


def _fitting(album: Album, ring: set[str], claimed: list[Pair]) -> set[tuple[str, str]]:
    return {
        (track_id, claim.file.name)
        for claim in claimed
        for track_id in ring
        if album.pairs[track_id, claim.file.name].fits
    }


def _names_hold(album: Album, claimed: list[Pair]) -> bool:
    refuted = sum(_is_another(album, claim) for claim in claimed)
    return refuted <= _SLIPS or refuted < _REFUTED * len(claimed)


def _is_another(album: Album, claim: Pair) -> bool:
    """Whether the file is not what it is named, and may be another track."""
    fits = (album.pairs[track.id, claim.file.name].fits for track in album.tracks)
    return not claim.permitted and any(fits)


def _numbers_hold(album: Album, numbered: list[Pair]) -> bool:
    """Whether the lengths confirm that the numbers are this album's.

    They are another edition's if a file that is not what its number says is another track.
    """
    looked_at = [claim for claim in numbered if claim.off_s is not None]
    fitting = sum(claim.fits for claim in looked_at)
    shifted = any(_is_another(album, claim) for claim in looked_at)
    enough = len(album.tracks) >= _ENOUGH_TRACKS
    return enough and not shifted and fitting >= _FITTING * len(looked_at)
