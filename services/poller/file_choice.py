"""Which files of a torrent are worth having placed, and whether a candidate is an album.

By names alone: which file is which track is decided when they are here, by their lengths.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz

from shared.media.extensions import AUDIO, LOSSY, extension_of

_MOST = 200
# Of 100, at which two names are the same but for a typo.
_SAME = 90.0
_SURE_MAPPING = 0.8
# "03 …", "1-03 …", "103 …", "CD1 03 …"
_NUMBER = re.compile(r"^\W*(?:(?:cd|disc)\s?)?(?:(\d)[\s.\-_]+)?(\d{1,3})(?=\D|$)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class WantedTrack:
    """What tells the file of an item from others, as far as the catalog said."""

    title: str
    number: int | None
    disc: int | None


def is_audio(path: str) -> bool:
    """Whether its name ends as that of an audio file."""
    return extension_of(path) in AUDIO


def choose(
    wanted: Sequence[WantedTrack],
    paths: Sequence[str],
    mappings: Sequence[Mapping[str, object]],
) -> list[str]:
    """The audio files to have placed: one a track if that is clear for each, else all.

    At most 200, those first whose names are most like what is wanted; in the order of their names.
    """
    audio = sorted({path for path in paths if is_audio(path)})
    sure = [_sure(track, audio, mappings) for track in wanted]
    clear = [path for path in sure if path is not None]
    if wanted and len(set(clear)) == len(wanted):
        return sorted(clear)[:_MOST]
    titles = [folded(track.title) for track in wanted]

    def likeness(path: str) -> float:
        return max((fuzz.partial_ratio(title, _stem(path)) for title in titles), default=0.0)

    return sorted(sorted(audio, key=likeness, reverse=True)[:_MOST])


def pipeline_format(paths: Sequence[str]) -> str:
    """What the pipeline should convert them to: it always converts, so with the least loss."""
    return "mp3" if all(extension_of(path) in LOSSY for path in paths) else "flac"


def only_albums(
    candidates: Sequence[tuple[str, Sequence[str] | None]], *, title: str, album: str
) -> bool:
    """Whether each of these (torrent title, its files or None) looks like an album with the track.

    Files say it best: two pieces of audio. Otherwise the name of the album, and not the track's.
    """
    return bool(candidates) and all(
        _is_album(name, files, title=title, album=album) for name, files in candidates
    )


def folded(text: str) -> str:
    """Words in lower case without accents and punctuation, one space between them."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(re.findall(r"\w+", plain.casefold().replace("_", " ")))


def _is_album(name: str, files: Sequence[str] | None, *, title: str, album: str) -> bool:
    if files is not None:
        return sum(1 for path in files if is_audio(path)) > 1
    return bears_name(name, album) and not bears_name(name, title)


def bears_name(text: str, name: str) -> bool:
    """Whether the words of `name` stand in `text`, but for a typo."""
    words, found = folded(name), folded(text)
    if not words:
        return False
    # A short name is soon like a part of anything.
    return f" {words} " in f" {found} " or (
        len(words) > 6 and fuzz.partial_ratio(words, found) >= _SAME
    )


def _sure(
    track: WantedTrack, audio: Sequence[str], mappings: Sequence[Mapping[str, object]]
) -> str | None:
    """The one file that is called as this track is; None when none or several are."""
    named = [path for path in audio if _is_called(track, path)]
    if not named and track.number is not None:
        mapped = {
            str(each["path"])
            for each in mappings
            if each["item_id"] == f"track-{track.number}"
            and float(str(each["confidence"])) >= _SURE_MAPPING
        }
        # Torrentino numbers every disc's tracks alike.
        named = [path for path in audio if path in mapped and _disc_fits(track, path)]
    return named[0] if len(named) == 1 else None


def _is_called(track: WantedTrack, path: str) -> bool:
    disc, number, rest = _read(path)
    title = folded(track.title)
    numbers_fit = number is None or track.number is None or number == track.number
    if not numbers_fit or not (disc is None or track.disc is None or disc == track.disc):
        return False
    if number is not None and number == track.number and (not rest or bears_name(rest, title)):
        return True
    return fuzz.ratio(title, rest) >= _SAME


def _disc_fits(track: WantedTrack, path: str) -> bool:
    disc, _, _ = _read(path)
    return disc is None or track.disc is None or disc == track.disc


def _read(path: str) -> tuple[int | None, int | None, str]:
    """Disc, number and the folded rest of a file's name, as far as it begins with them."""
    stem = path.rpartition("/")[2].rpartition(".")[0]
    found = _NUMBER.match(stem)
    in_folder = re.search(
        r"(?:cd|disc|disk)\s?(\d)(?=\D|$)", path.rpartition("/")[0], re.IGNORECASE
    )
    disc = int(in_folder[1]) if in_folder else None
    if found is None:
        return disc, None, folded(stem)
    number = int(found[2])
    if found[1]:
        disc = int(found[1])
    elif number > 100:
        disc, number = divmod(number, 100)
    return disc, number, folded(stem[found.end() :])


def _stem(path: str) -> str:
    return folded(path.rpartition("/")[2].rpartition(".")[0])
