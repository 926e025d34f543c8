"""What the paths of a torrent's files say: disc, number and title of each.

A name is read together with the others: what repeats in all of them (the artist, the album, a
group's signature) is noise, and "A1" is the side of a record only where all names have one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from rapidfuzz import fuzz

from shared.matching.numbering import Stem, numbered_first
from shared.matching.titles import (
    BRACKETED,
    LONGEST,
    Likeness,
    Title,
    fold,
    is_code,
    one_line,
    title_of,
)
from shared.matching.vocabulary import says_nothing
from shared.media.extensions import AUDIO, AUDIO_OR_VIDEO, extension_of, without_appended

_PART = re.compile(r"#(\d+)$")
_DISC_FOLDER = re.compile(
    r"(?<![^\W_])(?:cd|dis[ck]|disque|disco|диск|digital media|lp)[\s._#-]*0*(\d{1,2})(?!\d)",
    re.IGNORECASE,
)
_DISC_AND_NUMBER = re.compile(
    r"^[\[(]?(?:(?:cd|dis[ck]|d)\s*0*(\d{1,2})(?:[-_.\s]+(?:tracks?|t)?|tracks?|t)\s*|"
    r"0*(\d{1,2})[-.])(\d{1,3})(?![^\W_])[\])]?(?P<gap>\s*[-\u2013\u2014.:_)]*\s*)",
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    r"^(?:track|трек|дорожка|#|\[|\()*\s*(\d{1,3})(?!\d)(?![^\W\d_])(?P<gap>[\])]?\s*[-\u2013\u2014.:_)]*\s*)",
    re.IGNORECASE,
)
_SIDED = re.compile(r"^([A-Ha-h])(\d{1,2})(?![^\W_])(?P<gap>[\])]?\s*[-\u2013\u2014.:_)]*\s*)")
# Endings of which a client or a file system left two letters or more.
_CUT_ENDINGS = frozenset(ending[:2] for ending in AUDIO) | {ending[:3] for ending in AUDIO}
# Eleven letters, digits, dashes and underscores.
_VIDEO_ID = re.compile(
    r"(?<=\S)(?:\s*\[(?P<bracketed>[A-Za-z0-9_-]{11})\]|-(?P<dashed>[A-Za-z0-9]{11}))$"
)
_SEGMENTS = re.compile(r"\s+[-\u2013\u2014]\s+|\s*~\s*")
# A dash that is not in brackets.
_SEGMENTS_CLOSE = re.compile(r"\s*[-\u2013\u2014]\s*(?![^()]*\))")

# A text is noise if this part of the files, and at least so many, begin or end with it.
_COMMON = 0.7
_COMMON_FILES = 3
# Pieces of a name that are told apart, and shorter ends of it that are read as a title: names have
# up to five pieces.
_MOST_PIECES, _MOST_ENDS = 8, 4
# How alike an artist in a name, with "feat. …" or without "The", must be to the catalog's.
_ARTIST = 88.0


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A title that a name may mean, and the highest likeness that it can give.

    That is lower where a piece of the name was left out without an explanation.
    """

    title: Title
    at_most: Likeness = Likeness.SAME


@dataclass(frozen=True, kw_only=True)
class Named:
    """What the path of one file says. Without readings it has no title: "05.flac"."""

    readings: tuple[Reading, ...] = ()
    disc: int | None = None
    number: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Split:
    """A name taken apart: its number, and the rest of the text in pieces."""

    folder: str
    pieces: tuple[str, ...]
    disc: int | None = None
    number: int | None = None
    side: str | None = None
    # The text with its number, where that may be part of the title ("99 Luftballons").
    unsplit: str | None = None
    # The name with the text before its number, where there is any.
    whole: str | None = None
    # How sure the pieces are, where `unsplit` may be the title as well.
    at_most: Likeness = Likeness.SAME


def read_names(paths: Sequence[str], artists: Collection[str] = ()) -> list[Named]:
    """What each path says, in the order of the paths, which are all of one torrent.

    `artists` are the album's in the catalog: their names in a path are noise.
    """
    whole = [path for path in paths if not _PART.search(path)]
    folders = [path.rpartition("/")[0] for path in whole]
    stems = numbered_first([_stem_of(path) for path in whole], folders)
    splits = [_split(stem, path) for stem, path in zip(stems, whole, strict=True)]
    sided = _sides(splits)
    reader = _Reader(splits, artists)
    said = {path: reader.read(split, sided) for path, split in zip(whole, splits, strict=True)}
    return [said.get(path) or _disc_only(path) for path in paths]


class _Reader:
    """Reads names, with what repeats over the files of the torrent."""

    def __init__(self, splits: Sequence[_Split], artists: Collection[str]) -> None:
        self._artists = {folded for artist in artists if (folded := fold(artist))}
        self._first = _repeated([split.pieces[0] for split in splits if len(split.pieces) > 1])
        self._last = _repeated([split.pieces[-1] for split in splits if len(split.pieces) > 1])
        # A single "22.mp3" may be a title; several are numbers.
        self._bare_is_title = sum(not split.pieces for split in splits) == 1

    def read(self, split: _Split, sided: dict[tuple[str, int], int] | None) -> Named:
        number = split.number
        disc = split.disc if split.disc is not None else _disc_in(split.folder)
        readings = tuple(
            replace(reading, at_most=min(reading.at_most, split.at_most))
            for reading in self._readings(split.pieces)
        )
        if split.side is not None:
            number = sided[split.side, number or 0] if sided is not None else None
        if split.unsplit is not None and (split.pieces or self._bare_is_title):
            readings = (*readings, Reading(title=title_of(split.unsplit)))
        if split.whole is not None:
            # What looks like noise and a number may be a title: "Suite, Pt. 6".
            readings += tuple(
                Reading(title=reading.title, at_most=min(reading.at_most, Likeness.NEAR))
                for reading in self._readings(_pieces(split.whole))
            )
        return Named(readings=readings, disc=disc, number=number)

    def _readings(self, pieces: tuple[str, ...]) -> tuple[Reading, ...]:
        """The whole text, the text without noise, and each shorter end of that."""
        core = list(pieces)
        while len(core) > 1 and (self._is_artist(core[0]) or fold(core[0]) in self._first):
            core.pop(0)
        while len(core) > 1 and self._is_artist(core[-1]):
            core.pop()
        texts = [(" - ".join(pieces), Likeness.SAME), (" - ".join(core), Likeness.SAME)]
        if len(core) > 1 and not title_of(" - ".join(core[-2:])).marks:
            signed = fold(core[-1]) in self._last
            texts.append((" - ".join(core[:-1]), Likeness.SAME if signed else Likeness.SIMILAR))
        ends = range(max(1, len(core) - _MOST_ENDS), len(core))
        texts += [(" - ".join(core[start:]), Likeness.NEAR) for start in ends]
        readings: dict[str, Reading] = {}
        for text, at_most in texts:
            title = title_of(self._without_artist(text))
            if title.core and title.core not in readings and not is_code(title):
                readings[title.core] = Reading(title=title, at_most=at_most)
        return tuple(readings.values())

    def _without_artist(self, text: str) -> str:
        """`text` without brackets that contain only the artist."""
        return BRACKETED.sub(lambda found: "" if self._is_artist(found[1]) else found[0], text)

    def _is_artist(self, piece: str) -> bool:
        folded = fold(piece)
        return any(
            folded == artist or folded.startswith(f"{artist} ")
            or fuzz.token_sort_ratio(folded, artist) >= _ARTIST
            for artist in self._artists
        )  # fmt: skip


def _repeated(pieces: Sequence[str]) -> frozenset[str]:
    counted = Counter(fold(piece) for piece in pieces)
    least = max(_COMMON_FILES, _COMMON * len(pieces)) if len(pieces) > 2 else 2
    return frozenset(piece for piece, times in counted.items() if times >= least)


def _stem_of(path: str) -> str:
    """The file's name without folders and endings; underscores and dots become spaces."""
    name = without_appended(path.rpartition("/")[2][-LONGEST:])
    audio = extension_of(name) in AUDIO_OR_VIDEO | _CUT_ENDINGS
    stem = _without_code((name.rpartition(".")[0] if audio else name).strip())
    if " " in stem or "_" in stem:
        return one_line(stem.replace("_", " "))
    # "04.Some.Title", but not "R.E.M."
    dotted = stem.count(".") > 1 and re.search(r"[^\W\d]{2}\.[^\W\d]{2}", stem)
    return re.sub(r"\.(?=\D)|(?<=\D)\.", " ", stem) if dotted else stem


def _without_code(stem: str) -> str:
    """The name without the id of a video at its end: "Title [kJQP7kiw5Fk]"."""
    found = _VIDEO_ID.search(stem)
    if found is None:
        return stem
    code = found["bracketed"] or found["dashed"]
    mixed = not (code.istitle() or code.islower() or code.isupper())
    digits = any(char.isdecimal() for char in code)
    signed = any(char in "-_" for char in code)
    # After a dash there are words as well, of a group or of a title: "7_Rings-GRP".
    is_id = mixed and digits if found["dashed"] else digits or signed or mixed
    return stem[: found.start()] if is_id else stem


def _split(stem: Stem, path: str) -> _Split:
    """The name taken apart."""
    found = _parted(stem.read, path, whole=stem.whole)
    if not stem.titled:
        return found
    return replace(found, unsplit=stem.whole, whole=None, at_most=Likeness.NEAR)


def _parted(stem: str, path: str, *, whole: str) -> _Split:
    """`stem` taken apart; `whole` is the name with the prefix that all have in common."""
    cut = whole if whole != stem else None
    plain = _Split(folder=path.rpartition("/")[0], pieces=(), whole=cut)
    if found := _DISC_AND_NUMBER.match(stem):
        plain = replace(plain, disc=int(found[1] or found[2]), number=int(found[3]))
        # "01-99 luftballons": the second number may be part of the title.
        return replace(_after(found, stem, plain), unsplit=stem[found.start(3) :])
    if found := _SIDED.match(stem):
        plain = replace(plain, side=found[1].upper(), number=int(found[2]))
    elif found := _NUMBERED.match(stem):
        disc, number = _three_digits(found[1]) or (None, int(found[1]))
        plain = replace(plain, disc=disc, number=number)
    else:
        return _number_inside(replace(plain, pieces=_pieces(stem)), whole)
    return _after(found, stem, plain)


def _three_digits(digits: str) -> tuple[int, int] | None:
    """Disc and number in one: "203" is the third track of the second disc."""
    if len(digits) != 3 or digits[0] == "0" or digits[1:] == "00":
        return None
    return int(digits[0]), int(digits[1:])


def _after(found: re.Match[str], stem: str, split: _Split) -> _Split:
    """`split` with the text that follows its number.

    With only a space between them, the number may be part of the title; so it may before an
    addition that is no title: "22 - 2011 Remaster".
    """
    text = stem[found.end() :]
    tells = not all(map(says_nothing, fold(text).split()))
    sure = bool(found["gap"].strip()) and split.side is None and tells
    unsplit = None if sure or re.match(r"[\[(#]*0|track", stem, re.IGNORECASE) else stem
    if not text and unsplit is None:
        return split
    return replace(split, pieces=_pieces(text) if text else (), unsplit=unsplit)


def _number_inside(split: _Split, stem: str) -> _Split:
    """The last piece that is a number, and the text after it: "Artist - Album - 05 - Title"."""
    for place in range(len(split.pieces) - 2, -1, -1):
        found = _NUMBERED.match(split.pieces[place])
        if found and found.end() == len(split.pieces[place]):
            after = split.pieces[place + 1 :]
            return replace(split, pieces=after, number=int(found[1]), whole=stem)
    if len(split.pieces) > 1 and re.match(r"\d\d[.\s]", split.pieces[-1]):
        inner = _parted(split.pieces[-1], f"{split.folder}/", whole=stem)
        return replace(inner, pieces=inner.pieces or split.pieces)
    return split


def _pieces(text: str) -> tuple[str, ...]:
    pieces = [piece.strip() for piece in _SEGMENTS.split(text)]
    if len(pieces) == 1 and text.count("-") and " - " not in text:
        close = [piece.strip() for piece in _SEGMENTS_CLOSE.split(text)]
        # "artist-title", but "Semi-Charmed Life" and "re-make re-model" are one title.
        pieces = close if all(" " in piece or len(close) > 2 for piece in close[:-1]) else pieces
    if len(pieces) > _MOST_PIECES:
        pieces = [" - ".join(pieces[:-_MOST_PIECES]), *pieces[-_MOST_PIECES:]]
    return tuple(piece for piece in pieces if piece) or (text.strip(),)


def _sides(splits: Sequence[_Split]) -> dict[tuple[str, int], int] | None:
    """The running number of each side and number; None unless the names are one whole record."""
    seen = sorted({(split.side, split.number or 0) for split in splits if split.side is not None})
    if not splits or len(splits) < 2 or any(split.side is None for split in splits):
        return None
    for before, after in zip([("", 0), *seen], seen, strict=False):
        follows = after[1] == before[1] + 1 if after[0] == before[0] else after[1] == 1
        if not follows:
            return None
    return {(side, number): place for place, (side, number) in enumerate(seen, start=1) if side}


def _disc_in(folder: str) -> int | None:
    for name in reversed(folder.split("/")):
        if found := _DISC_FOLDER.search(name):
            return int(found[1])
    return None


def _disc_only(path: str) -> Named:
    """What the path says of a part: the disc. Number and title are those of the CUE sheet."""
    return Named(disc=_disc_in(_PART.sub("", path)))
