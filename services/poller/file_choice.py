"""Which files of a torrent are worth having placed, and whether a candidate is an album.

By names alone: which file is which track is decided when they are here, by their lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rapidfuzz import fuzz

from shared.matching.names import Named, read_names
from shared.matching.titles import Likeness, Title, TitleIndex, fold, likeness, title_of
from shared.media.extensions import AUDIO, LOSSY, extension_of
from shared.tracks import CatalogTrack

_MOST = 200
# Of 100, at which two names are the same but for a typo.
_SAME = 90.0
# Letters; a shorter name is soon like a part of anything.
_SHORT = 6
_SURE_MAPPING = 0.8
# Of 100, from which on names are ordered by how alike they are.
_NEAREST = 50.0
# What the title beside the right number may be: of this song, and no other.
_OF_SONG = (Likeness.OTHER_RECORDING, Likeness.SIMILAR, Likeness.NEAR, Likeness.SAME)


def is_audio(path: str) -> bool:
    """Whether its name ends as that of an audio file."""
    return extension_of(path) in AUDIO


def choose(
    wanted: Sequence[CatalogTrack],
    paths: Sequence[str],
    mappings: Sequence[Mapping[str, object]],
) -> list[str]:
    """The audio files to have placed: one a track if that is clear for each, else all.

    At most 200, those first whose names are most like what is wanted; in the order of their names.
    """
    listing = _Listing(sorted({path for path in paths if is_audio(path)}), mappings)
    sure = [listing.sure(track) for track in wanted]
    clear = [path for path in sure if path is not None]
    if wanted and len(set(clear)) == len(wanted):
        return sorted(clear)[:_MOST]
    return sorted(listing.nearest([title_of(track.title) for track in wanted])[:_MOST])


class _Listing:
    """The audio files of a torrent, found by their numbers, titles and mappings.

    A torrent lists up to 10,000 files, and up to 200 tracks are wanted: no pair of all is compared.
    """

    def __init__(self, audio: Sequence[str], mappings: Sequence[Mapping[str, object]]) -> None:
        self._audio = audio
        self._named = dict(zip(audio, read_names(audio), strict=True))
        self._by_number: dict[int | None, list[str]] = {}
        self._by_core: dict[str, list[str]] = {}
        for path, says in self._named.items():
            self._by_number.setdefault(says.number, []).append(path)
            for core in {reading.title.core for reading in says.readings}:
                self._by_core.setdefault(core, []).append(path)
        titles = (reading.title for says in self._named.values() for reading in says.readings)
        self._titles = TitleIndex(titles)
        self._mapped: dict[str, set[str]] = {}
        for each in mappings:
            if float(str(each["confidence"])) >= _SURE_MAPPING:
                self._mapped.setdefault(str(each["item_id"]), set()).add(str(each["path"]))

    def sure(self, track: CatalogTrack) -> str | None:
        """The one file that is called as this track is; None when none or several are."""
        possible = {
            path
            for core in self._titles.like(title_of(track.title))
            for path in self._by_core[core]
        }
        if track.number is not None:
            possible |= set(self._by_number.get(track.number, ()))
        called = [path for path in possible if _is_called(track, self._named[path])]
        if not called and track.number is not None:
            # Torrentino numbers every disc's tracks alike.
            called = [
                path
                for path in self._mapped.get(f"track-{track.number}", set()) & self._named.keys()
                if _agree(self._named[path].disc, track.disc)
            ]
        return called[0] if len(called) == 1 else None

    def nearest(self, titles: Sequence[Title]) -> list[str]:
        """All files, those first of which a title is most like one of these."""
        scores: dict[str, float] = {}
        for title in set(titles):
            for core, ratio in self._titles.like(title, least=_NEAREST).items():
                for path in self._by_core[core]:
                    scores[path] = max(ratio, scores.get(path, 0.0))
        return sorted(self._audio, key=lambda path: scores.get(path, 0.0), reverse=True)


def pipeline_format(paths: Sequence[str]) -> str:
    """What the pipeline should convert them to: it always converts, so with the least loss."""
    return "mp3" if all(extension_of(path) in LOSSY for path in paths) else "flac"


def only_albums(
    candidates: Sequence[tuple[str, Sequence[str] | None]], *, title: str, album: str
) -> bool:
    """Whether each of these (torrent title, its files or None) seems to be an album with the track.

    Files are the best evidence: two pieces of audio. Otherwise the title has the name of the album,
    and not the track's.
    """
    return bool(candidates) and all(
        _is_album(name, files, title=title, album=album) for name, files in candidates
    )


def _is_album(name: str, files: Sequence[str] | None, *, title: str, album: str) -> bool:
    if files is not None:
        return sum(1 for path in files if is_audio(path)) > 1
    return bears_name(name, album) and not bears_name(name, title)


def bears_name(text: str, name: str) -> bool:
    """Whether the words of `name` stand in `text`, but for a typo."""
    words, found = fold(name), fold(text)
    if not words:
        return False
    return f" {words} " in f" {found} " or (
        len(words) > _SHORT and fuzz.partial_ratio(words, found) >= _SAME
    )


def _is_called(track: CatalogTrack, says: Named) -> bool:
    if not (_agree(says.number, track.number) and _agree(says.disc, track.disc)):
        return False
    numbered = says.number is not None and says.number == track.number
    if not says.readings:
        return numbered
    alike = max(
        min(likeness(title_of(track.title), reading.title), reading.at_most)
        for reading in says.readings
    )
    return alike in _OF_SONG if numbered else alike >= Likeness.NEAR


def _agree(of_name: int | None, of_track: int | None) -> bool:
    return of_name is None or of_track is None or of_name == of_track
