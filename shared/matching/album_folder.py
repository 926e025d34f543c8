"""A torrent of several albums gives the one that was asked for."""

from __future__ import annotations

from collections.abc import Sequence

from shared.matching.by_length import Open, doubts_of
from shared.matching.evidence import Album
from shared.matching.folders import read_folders
from shared.matching.model import Doubt, Offered
from shared.matching.name_evidence import name_evidence
from shared.matching.titles import Likeness
from shared.tracks import CatalogTrack

_ELSEWHERE = "the album's own folder has no such file, but another folder of the torrent has"


def within_album(
    tracks: Sequence[CatalogTrack], offered: Sequence[Offered], album: str | None
) -> tuple[Sequence[Offered], Sequence[Offered]]:
    """The files in folders that are called as the album, and the others; all, where none is."""
    if album is None:
        return offered, ()
    artists = {track.artist for track in tracks if track.artist}
    folders = read_folders([one.name for one in offered], album=album, artists=artists)
    best = max(folder.of_album for folder in folders)
    if not best:
        return offered, ()
    discs = {folder.set_of_discs for folder in folders if folder.of_album == best} - {None}
    inside: list[Offered] = []
    outside: list[Offered] = []
    for one, folder in zip(offered, folders, strict=True):
        is_in = folder.of_album == best or folder.set_of_discs in discs
        (inside if is_in else outside).append(one)
    return inside, outside


def elsewhere(album: Album) -> dict[str, Doubt]:
    """By track id: the files of other albums' folders with the title and the length of a track.

    They may be another recording, so an administrator chooses.
    """
    named = {
        pair.track.id
        for pair in album.pairs.values()
        if pair.permitted and pair.likeness >= Likeness.NEAR
    }
    known = dict.fromkeys(named, Open(reason=_ELSEWHERE))
    doubts = doubts_of(album, name_evidence(album), {}, known)
    return {track_id: doubt for track_id, doubt in doubts.items() if track_id in named}
