"""Titles in normal form, and how alike two titles are.

Case, accents, punctuation, "feat. …" and "(Remastered 2011)" do not tell recordings apart. But
"(Live)", "(Remix)" and "Pt. 2" do: they are kept, and compared separately.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from rapidfuzz import fuzz, process

from shared.matching.vocabulary import (
    OF_ITS_TAPE,
    PART_WORDS,
    ROMAN,
    WORDED,
    is_version,
    marks_in,
    says_nothing,
)

_APOSTROPHES = re.compile("['`\u2018\u2019\u00b4\u02bc\u2032]")
_DOTTED_LETTERS = re.compile(r"(?<=\b\w)\.(?=\w\b)")
_AND = re.compile(r"&|\s\+\s")
# The names of files have at most 255 bytes, and no title of a song is longer.
LONGEST = 400
# Letters that Unicode does not decompose.
_PLAIN = str.maketrans(
    {
        "ø": "o",
        "æ": "ae",
        "œ": "oe",
        "ł": "l",
        "đ": "d",
        "ð": "d",
        "þ": "th",
        "\u0131": "i",
        "ħ": "h",
    }
)
_WORD_BREAKS = frozenset("PSZC")
_ASCII_BREAKS = {
    code: " " for code in range(128) if unicodedata.category(chr(code))[0] in _WORD_BREAKS
}
# Also the full-width ones of Chinese and Japanese.
_OPENING, _CLOSING = r"(\[{\uff08\u3010\u300c", r")\]}\uff09\u3011\u300d"
BRACKETED = re.compile(f"[{_OPENING}]([^{_OPENING}{_CLOSING}]*)[{_CLOSING}]")
_DASH = re.compile(r"\s+[-\u2013\u2014~]\s+")
# To the end of the text outside brackets; "ft" as a separate word.
_GUESTS = re.compile(r"\s+(?:feat|ft|featuring)\b\.?\s.*$", re.IGNORECASE)
_GUESTS_FIRST = re.compile(r"(?:feat|ft|featuring|with|prod|produced by)\b")
# At the end, without a bracket or dash: "song 2011 remaster".
_REMASTERED = re.compile(
    r"(?<=\S)(?: (?:19|20)\d\d)?(?: digital(?:ly)?)? remaster(?:ed)?"
    r"(?: (?:19|20)\d\d)?(?: version)?$"
)
# Names that programs make: "8f3a2b9c", "dQw4w9WgXcQ".
_CODE = re.compile(r"[0-9a-f]{8,}|[0-9a-z]{11,}")
_NUMBER = re.compile(r"\d+|[一二三四五六七八九十]")


_NEAR = 85.0
_SIMILAR = 70.0
_CONTAINED_CHARS = 4
# Titles that are compared in one call: in a millisecond.
_AT_ONCE = 2000


class Likeness(IntEnum):
    """How alike two titles are, in rising order."""

    OTHER_TITLE = 0
    # The same song, but another recording: "(Live)", "(Remix)".
    OTHER_RECORDING = 1
    # One of the titles is unknown, or they have no script in common.
    UNKNOWN = 2
    # One begins with the other, or they are as alike as with translated brackets.
    SIMILAR = 3
    # The same but for a typing error.
    NEAR = 4
    SAME = 5


@dataclass(frozen=True, kw_only=True)
class Title:
    """A title in normal form. The same `core` and `marks` mean the same recording."""

    core: str
    # `core` without the texts of brackets and after dashes.
    base: str
    marks: frozenset[str]
    # Its numbers in order ("Pt. II" has "2"), and a letter that stands for one ("Suite B").
    numbers: tuple[str, ...]
    # The scripts of `base`.
    scripts: frozenset[str]


def fold(text: str) -> str:
    """Lower case words with single spaces, without accents and punctuation.

    A text of punctuation alone ("!!!", "…") is a name, and stays as it is.
    """
    whole = unicodedata.normalize("NFKC", _APOSTROPHES.sub("", text)).casefold()
    apart = unicodedata.normalize("NFKD", _DOTTED_LETTERS.sub("", _AND.sub(" and ", whole)))
    if apart.isascii():  # nearly every text, and much faster
        words = apart.translate(_ASCII_BREAKS)
    else:
        plain = "".join(char for char in apart if not "\u0300" <= char <= "\u036f")
        words = "".join(
            " " if unicodedata.category(char)[0] in _WORD_BREAKS else char
            for char in unicodedata.normalize("NFC", plain).translate(_PLAIN)
        )
    return " ".join(words.split()) or "".join(whole.split())


def one_line(text: str) -> str:
    """The first `LONGEST` characters, with single blanks: no pattern takes long for them."""
    return " ".join(text[:LONGEST].split())


@lru_cache(maxsize=8192)
def title_of(text: str) -> Title:
    """The title in `text`; texts in brackets and after dashes count only if they tell it apart."""
    text = one_line(text)
    plain, added = _taken_apart(text)
    base = numbered(_REMASTERED.sub("", fold(_GUESTS.sub("", plain))))
    kept = [numbered(words) for words in added if not _says_nothing(words)]
    core = " ".join(filter(None, (base, *kept)))
    if not core:
        # Only a bracket, "(Untitled)" or "[Bonus Track]": that is the name.
        core = base = numbered(fold(text))
    return Title(
        core=core,
        base=base or core,
        marks=frozenset().union(*(marks_in(words) for words in kept)),
        numbers=_numbers_of(core),
        scripts=_scripts_of(base or core),
    )


def likeness(
    track: Title,
    file: Title,
    *,
    usual: frozenset[str] = frozenset(),
    implied: frozenset[str] = frozenset(),
    beside: frozenset[str] = frozenset(),
) -> Likeness:
    """How alike the title of a track and that of a file are.

    `usual` are the marks that all tracks of the album have: a file need not repeat them. `implied`
    are those that the album's name has: the files may have them, the tracks need not. `beside` are
    the marks that the file has apart from this title, by its folder, its name or its tags.
    """
    alike = _of_titles(track, file, usual=usual | beside, implied=implied)
    foreign = beside - track.marks - implied
    return min(alike, Likeness.OTHER_RECORDING) if foreign else alike


def _of_titles(
    track: Title, file: Title, *, usual: frozenset[str], implied: frozenset[str]
) -> Likeness:
    if track.core == file.core:
        return Likeness.SAME if track.core else Likeness.UNKNOWN
    missing, marked = track.marks - file.marks, file.marks - track.marks
    foreign = marked - implied or missing & OF_ITS_TAPE - usual
    if not track.scripts & file.scripts:
        return Likeness.OTHER_RECORDING if foreign else Likeness.UNKNOWN
    if track.base == file.base and missing <= usual and (missing or marked):
        if not marked:
            return Likeness.SAME
        if marked <= implied:
            return Likeness.NEAR
    if foreign:
        return _of_another(track, file)
    return _unmarked(track, file) if missing else _by_letters(track.core, file.core, track, file)


def is_code(title: Title) -> bool:
    """Whether it is a name that a program made."""
    core = title.core
    mixed = any(char.isdecimal() for char in core) and any(char.isalpha() for char in core)
    return mixed and _CODE.fullmatch(core) is not None


def score(track: Title, file: Title) -> int:
    """Letters that agree, 0 to 100: to show, and to order pairs of the same likeness."""
    return round(_ratio(track.core, file.core))


class TitleIndex:
    """Titles by their letters: what is like one of them is found without reading all others."""

    def __init__(self, titles: Iterable[Title]) -> None:
        cores = sorted({title.core for title in titles})
        # In parts: a call of rapidfuzz does not let other threads run.
        parts = (cores[at : at + _AT_ONCE] for at in range(0, len(cores), _AT_ONCE))
        self._parts = [(part, [_in_order(core) for core in part]) for part in parts]

    def like(self, title: Title, *, least: float = _NEAR) -> dict[str, float]:
        """The score of each core that has at least `least` with this title; see `score`."""
        found: dict[str, float] = {}
        for cores, in_order in self._parts:
            for text, choices in ((title.core, cores), (_in_order(title.core), in_order)):
                for _, ratio, place in process.extract(
                    text, choices, scorer=fuzz.ratio, score_cutoff=least, limit=None
                ):
                    found[cores[place]] = max(ratio, found.get(cores[place], 0.0))
        return found


def _in_order(core: str) -> str:
    return " ".join(sorted(core.split()))


def _of_another(track: Title, file: Title) -> Likeness:
    alike = track.base == file.base or _ratio(track.base, file.base) >= _NEAR
    return Likeness.OTHER_RECORDING if alike else Likeness.OTHER_TITLE


def _unmarked(track: Title, file: Title) -> Likeness:
    """The track is "(Live)", and the file's name does not say so, but its folder may."""
    alike = _by_letters(track.base, file.core, track, file, numbers=False)
    return min(alike, Likeness.SIMILAR)


def _by_letters(
    left: str, right: str, track: Title, file: Title, *, numbers: bool = True
) -> Likeness:
    if left == right:
        return Likeness.SAME
    if numbers and track.numbers != file.numbers:
        return Likeness.OTHER_TITLE
    ratio = _ratio(left, right)
    if ratio >= _NEAR:
        return Likeness.NEAR
    if ratio >= _SIMILAR or _begins(left, right) or _begins(right, left):
        return Likeness.SIMILAR
    return Likeness.OTHER_TITLE


@lru_cache(maxsize=65536)
def _ratio(left: str, right: str) -> float:
    return max(fuzz.ratio(left, right), fuzz.token_sort_ratio(left, right))


def _begins(short: str, whole: str) -> bool:
    return len(short) >= _CONTAINED_CHARS and whole.startswith(f"{short} ")


def _taken_apart(text: str) -> tuple[str, list[str]]:
    """`text` without its brackets and versions after dashes; those, folded, in their order."""
    added = [fold(inner) for inner in BRACKETED.findall(text)]
    plain = " ".join(BRACKETED.sub(" ", text).split())
    parts = _DASH.split(plain)
    versions: list[str] = []
    while len(parts) > 1 and _is_version(fold(parts[-1])):
        versions.insert(0, fold(parts.pop()))
    return " - ".join(parts), versions + added


def _is_version(words: str) -> bool:
    """Whether the text after a dash names a recording, and is not part of the title."""
    return _says_nothing(words) or is_version(words)


def _says_nothing(words: str) -> bool:
    split = words.split()
    if not split or _GUESTS_FIRST.match(words):
        return True
    if split == ["original", "mix"]:
        return True
    return all(map(says_nothing, split))


def numbered(words: str) -> str:
    """Folded words with numbers written one way: "pt ii" and "part two" become "part 2"."""
    split = words.split()
    written: list[str] = []
    for place, word in enumerate(split):
        before = written[-1] if written else ""
        after_part = before in PART_WORDS.values()
        following = split[place + 1] if place + 1 < len(split) else ""
        if word in PART_WORDS and (following.isdecimal() or following in ROMAN | WORDED):
            written.append(PART_WORDS[word])
        elif word in ROMAN and (after_part or len(word) > 1):
            written.append(ROMAN[word])
        elif after_part and word in WORDED:
            written.append(WORDED[word])
        else:
            written.append(str(int(word)) if word.isdecimal() else word)
    return " ".join(written)


def _numbers_of(core: str) -> tuple[str, ...]:
    last = core.rpartition(" ")[2]
    letter = (
        (last,) if len(last) == 1 and last.isascii() and last.isalpha() and last != core else ()
    )
    return (*_NUMBER.findall(core), *letter)


@lru_cache(maxsize=4096)
def _script_of(char: str) -> str:
    if char.isascii() or char.isdecimal():
        return "LATIN"
    name = unicodedata.name(char, "").partition(" ")[0]
    return "CJK" if name in {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"} else name


def _scripts_of(core: str) -> frozenset[str]:
    letters = frozenset(_script_of(char) for char in core if char.isalpha())
    return letters or frozenset(_script_of(char) for char in core if char != " ")
