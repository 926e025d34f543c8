"""What the paths of a torrent's files say: disc, number and title of each.

A name is read beside its siblings: what repeats in all of them (the artist, the album, a group's
signature) is noise, and "A1" is a side of a record only where all have one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from rapidfuzz import fuzz

from shared.matching.titles import BRACKETED, Likeness, Title, fold, is_code, title_of
from shared.media.extensions import AUDIO_OR_VIDEO, extension_of, without_appended

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
_SEGMENTS = re.compile(r"\s+[-\u2013\u2014]\s+|\s*~\s*")
# Not in brackets.
_SEGMENTS_CLOSE = re.compile(r"\s*[-\u2013\u2014]\s*(?![^()]*\))")

# A text is common to a torrent if this part of its files, and that many, begin or end with it.
_COMMON = 0.7
_COMMON_FILES = 3
# The catalog's artist and the name's, which may have "feat. …" after it or lack a "The".
_ARTIST = 88.0


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A title that a name may mean, and how much that can say at most.

    It is less where a piece of the name was left out that nothing explains.
    """

    title: Title
    at_most: Likeness = Likeness.SAME


@dataclass(frozen=True, kw_only=True)
class Named:
    """What the path of one file says. No readings: its name is no title ("05.flac")."""

    readings: tuple[Reading, ...] = ()
    disc: int | None = None
    number: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Split:
    """A name on the way to be read: its number, and the text that is left, in pieces."""

    folder: str
    pieces: tuple[str, ...]
    disc: int | None = None
    number: int | None = None
    side: str | None = None
    # The text with its number where that may belong to the title ("99 Luftballons").
    unsplit: str | None = None
    # The name with what stands before its number, where something does.
    whole: str | None = None


def read_names(paths: Sequence[str], artists: Collection[str] = ()) -> list[Named]:
    """What each of the paths says, in their order; all are of one torrent.

    `artists` are the album's, as the catalog writes them: their names in a path are noise.
    """
    stems = [_stem_of(path) for path in paths]
    splits = [
        None if _PART.search(path) else _split(short, path, whole=stem)
        for path, stem, short in zip(paths, stems, _without_prefix(stems), strict=True)
    ]
    known = [split for split in splits if split is not None]
    sided = _sides(known)
    reader = _Reader(known, artists)
    return [
        _disc_only(path) if split is None else reader.read(split, sided)
        for path, split in zip(paths, splits, strict=True)
    ]


class _Reader:
    """Knows what repeats over the files of a torrent."""

    def __init__(self, splits: Sequence[_Split], artists: Collection[str]) -> None:
        self._artists = {folded for artist in artists if (folded := fold(artist))}
        self._first = _repeated([split.pieces[0] for split in splits if len(split.pieces) > 1])
        self._last = _repeated([split.pieces[-1] for split in splits if len(split.pieces) > 1])
        # One "22.mp3" may be a song; several are numbers.
        self._bare_is_title = sum(not split.pieces for split in splits) == 1

    def read(self, split: _Split, sided: dict[tuple[str, int], int] | None) -> Named:
        number = split.number
        disc = split.disc if split.disc is not None else _disc_in(split.folder)
        readings = self._readings(split.pieces)
        if split.side is not None:
            number = sided[split.side, number or 0] if sided is not None else None
        if split.unsplit is not None and (split.pieces or self._bare_is_title):
            readings = (*readings, Reading(title=title_of(split.unsplit)))
        if split.whole is not None:
            # Taken for noise and a number, it may still be a title: "Suite, Pt. 6".
            readings += tuple(
                Reading(title=reading.title, at_most=min(reading.at_most, Likeness.NEAR))
                for reading in self._readings(_pieces(split.whole))
            )
        return Named(readings=readings, disc=disc, number=number)

    def _readings(self, pieces: tuple[str, ...]) -> tuple[Reading, ...]:
        """The whole text, the text without its noise, and each shorter end of that."""
        core = list(pieces)
        while len(core) > 1 and (self._is_artist(core[0]) or fold(core[0]) in self._first):
            core.pop(0)
        while len(core) > 1 and self._is_artist(core[-1]):
            core.pop()
        texts = [(" - ".join(pieces), Likeness.SAME), (" - ".join(core), Likeness.SAME)]
        if len(core) > 1 and not title_of(" - ".join(core[-2:])).marks:
            signed = fold(core[-1]) in self._last
            texts.append((" - ".join(core[:-1]), Likeness.SAME if signed else Likeness.SIMILAR))
        texts += [(" - ".join(core[start:]), Likeness.NEAR) for start in range(1, len(core))]
        readings: dict[str, Reading] = {}
        for text, at_most in texts:
            title = title_of(self._without_artist(text))
            if title.core and title.core not in readings and not is_code(title):
                readings[title.core] = Reading(title=title, at_most=at_most)
        return tuple(readings.values())

    def _without_artist(self, text: str) -> str:
        """`text` without brackets that hold nothing but the artist."""
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
    """The file's name without its folders and endings, with spaces where others stand for them."""
    name = without_appended(path.rpartition("/")[2])
    audio = extension_of(name) in AUDIO_OR_VIDEO
    stem = (name.rpartition(".")[0] if audio else name).strip()
    if " " in stem:
        return stem.replace("_", " ")
    if "_" in stem:
        return stem.replace("_", " ").strip()
    # "04.Some.Title", but not "R.E.M."
    dotted = stem.count(".") > 1 and re.search(r"[^\W\d]{2}\.[^\W\d]{2}", stem)
    return re.sub(r"\.(?=\D)|(?<=\D)\.", " ", stem) if dotted else stem


def _without_prefix(stems: list[str]) -> list[str]:
    """The names without what all begin with, where that ends before a number in each."""
    if len(stems) < _COMMON_FILES:
        return stems
    shared = _common_prefix([stem.casefold() for stem in stems]).rstrip("0123456789")
    if not shared or shared[-1].isalnum() or shared != stems[0][: len(shared)].casefold():
        return stems
    rest = [stem[len(shared) :] for stem in stems]
    return rest if all(text[:1].isdigit() for text in rest) else stems


def _common_prefix(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    same = next(
        (at for at, pair in enumerate(zip(first, last, strict=False)) if len({*pair}) > 1), None
    )
    return first[:same]


def _split(stem: str, path: str, *, whole: str) -> _Split:
    """`stem` taken apart; `whole` is the name before what all have in common was cut off."""
    cut = whole if whole != stem else None
    plain = _Split(folder=path.rpartition("/")[0], pieces=(), whole=cut)
    if found := _DISC_AND_NUMBER.match(stem):
        plain = replace(plain, disc=int(found[1] or found[2]), number=int(found[3]))
        # "01-99 luftballons": the second number may be the title's.
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
    """The disc and number that "203" is: the third of the second disc."""
    if len(digits) != 3 or digits[0] == "0" or digits[1:] == "00":
        return None
    return int(digits[0]), int(digits[1:])


def _after(found: re.Match[str], stem: str, split: _Split) -> _Split:
    """`split` with the text that follows its number.

    Nothing but a space between the two may mean that the number is part of the title.
    """
    text = stem[found.end() :]
    sure = bool(found["gap"].strip()) and split.side is None
    unsplit = None if sure or re.match(r"[\[(#]*0|track", stem, re.IGNORECASE) else stem
    if not text and unsplit is None:
        return split
    return replace(split, pieces=_pieces(text) if text else (), unsplit=unsplit)


def _number_inside(split: _Split, stem: str) -> _Split:
    """The last piece that is a number, and what follows it: "Artist - Album - 05 - Title"."""
    for place in range(len(split.pieces) - 2, -1, -1):
        found = _NUMBERED.match(split.pieces[place])
        if found and found.end() == len(split.pieces[place]):
            after = split.pieces[place + 1 :]
            return replace(split, pieces=after, number=int(found[1]), whole=stem)
    if len(split.pieces) > 1 and re.match(r"\d\d[.\s]", split.pieces[-1]):
        inner = _split(split.pieces[-1], f"{split.folder}/", whole=stem)
        return replace(inner, pieces=inner.pieces or split.pieces)
    return split


def _pieces(text: str) -> tuple[str, ...]:
    pieces = [piece.strip() for piece in _SEGMENTS.split(text)]
    if len(pieces) == 1 and text.count("-") and " - " not in text:
        close = [piece.strip() for piece in _SEGMENTS_CLOSE.split(text)]
        # "artist-title", but "Semi-Charmed Life" and "re-make re-model" are one title.
        pieces = close if all(" " in piece or len(close) > 2 for piece in close[:-1]) else pieces
    return tuple(piece for piece in pieces if piece) or (text.strip(),)


def _sides(splits: Sequence[_Split]) -> dict[tuple[str, int], int] | None:
    """The running number of each side and number; None unless all names are of one whole record."""
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
    """A part of a file: its number and title are the CUE sheet's; the path has only the disc."""
    return Named(disc=_disc_in(_PART.sub("", path)))
