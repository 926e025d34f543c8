"""A last track that is longer than the catalog says: a hidden track may follow it in the file."""

from __future__ import annotations

from collections.abc import Mapping

from shared.matching.by_length import shown
from shared.matching.evidence import Album, Pair, Position
from shared.matching.model import Doubt
from shared.matching.name_evidence import NameEvidence
from shared.matching.titles import Likeness
from shared.tracks import CatalogTrack

# The torrent is this album if this part of the other tracks is found.
_FOUND = 0.75


def hidden_tracks(
    album: Album, evidence: NameEvidence, sure: Mapping[str, Pair]
) -> dict[str, Doubt]:
    """By track id: the last tracks of discs, in this album's torrent, whose file is longer.

    Another recording of the song may be longer as well, so an administrator chooses.
    """
    if len(sure) < max(1, _FOUND * (len(album.tracks) - 1)):
        return {}
    taken = {pair.file.name for pair in sure.values()}
    found = {}
    for track in _last_of_discs(album):
        pairs = [album.pairs[track.id, file.name] for file in album.files if file.name not in taken]
        longer = [pair for pair in pairs if _is_longer(pair)]
        if track.id not in sure and len(longer) == 1:
            (pair,) = longer
            reason = (
                f"the file is {pair.off_s:.0f} s longer than the track, which is the last of its"
                " disc: a hidden track may follow it, or it is another recording"
            )
            found[track.id] = Doubt(reason=reason, candidates=(shown(evidence, pair),))
    return found


def _last_of_discs(album: Album) -> list[CatalogTrack]:
    last = {track.disc or 1: track for track in album.tracks}
    return list(last.values())


def _is_longer(pair: Pair) -> bool:
    if pair.off_s is None or pair.off_s <= pair.tolerance_s:
        return False
    length_s, wanted_ms = pair.file.offered.duration_s or 0.0, pair.track.duration_ms or 0
    named = pair.likeness >= Likeness.NEAR and pair.position is not Position.CONTRARY
    return named and length_s > wanted_ms / 1000
