"""Which files of a torrent are worth having placed, and whether a candidate is an album.

By names alone: which file is which track is decided when they are here, by their lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rapidfuzz import fuzz

from shared.matching.names import Named, read_names
from shared.matching.titles import Likeness, fold, likeness, score, title_of
from shared.media.extensions import AUDIO, LOSSY, extension_of
from shared.tracks import CatalogTrack

_MOST = 200
# Of 100, at which two names are the same but for a typo.
_SAME = 90.0
# Letters; a shorter name is soon like a part of anything.
_SHORT = 6
_SURE_MAPPING = 0.8
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
    audio = sorted({path for path in paths if is_audio(path)})
    named = dict(zip(audio, read_names(audio), strict=True))
    sure = [_sure(track, named, mappings) for track in wanted]
    clear = [path for path in sure if path is not None]
    if wanted and len(set(clear)) == len(wanted):
        return sorted(clear)[:_MOST]
    titles = [title_of(track.title) for track in wanted]

    def nearness(path: str) -> int:
        readings = named[path].readings
        return max(
            (score(title, reading.title) for title in titles for reading in readings), default=0
        )

    return sorted(sorted(audio, key=nearness, reverse=True)[:_MOST])


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


def _sure(
    track: CatalogTrack,
    named: Mapping[str, Named],
    mappings: Sequence[Mapping[str, object]],
) -> str | None:
    """The one file that is called as this track is; None when none or several are."""
    called = [path for path, says in named.items() if _is_called(track, says)]
    if not called and track.number is not None:
        mapped = {
            str(each["path"])
            for each in mappings
            if each["item_id"] == f"track-{track.number}"
            and float(str(each["confidence"])) >= _SURE_MAPPING
        }
        # Torrentino numbers every disc's tracks alike.
        called = [
            path for path, says in named.items() if path in mapped and _agree(says.disc, track.disc)
        ]
    return called[0] if len(called) == 1 else None


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
