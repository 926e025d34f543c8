"""A release's title taken apart: each word gets a role, whatever the family of its shape.

Shapes are not recognised by patterns. A title is a row of segments, in brackets or not; what is
known of formats, years, counts and markers is taken out of them, and what is left names an artist
and something.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from shared.choosing import vocabulary as words
from shared.matching import titles
from shared.matching.titles import fold

# Also the full-width ones of Chinese and Japanese.
_OPENING = dict(zip("([{\uff08\u3010\u300c", ")]}\uff09\u3011\u300d", strict=True))
# A title in quotes is a name, not a remark.
_QUOTED = "\u300d"
_DASHES = re.compile(r"\s+[-~\u2013\u2014]+\s+|\s*[\u2013\u2014]\s*")
_SLASH = re.compile(r"\s+/\s+")
_YEAR = r"(?:19|20)\d\d"
_YEARS = re.compile(rf"({_YEAR})[-\u2013]({_YEAR})")
# Of a set also with blanks; elsewhere those separate an album called by a year from its own.
_YEARS_APART = re.compile(rf"({_YEAR})\s*[-_\u2013]+\s*({_YEAR})")
_SET = re.compile(
    "disco?gra|\u0434\u0438\u0441\u043a\u043e\u0433\u0440|complete|collection|antholog|albums",
    re.IGNORECASE,
)
_ISSUE = re.compile(rf"({_YEAR})\s*/\s*({_YEAR})")
_DATE = re.compile(rf"\b({_YEAR})[.-](\d\d)[.-](\d\d)\b")
_NUMBERS = re.compile(r"(?<![\w.-])(\d{1,2})-(\d{1,2})(?![\w.-])")
_THE_LAST = re.compile(r"(.*),\s*the\b", re.IGNORECASE)
_GUESTS = re.compile(r"\s*\b(?:feat|ft|featuring)\b.*$")
_DISC = re.compile(r"^(?:cd|disc|disk)(\d{1,2})$")
_RATE = re.compile(r"^(\d{2,4})(?:k|kbps|kbits?|kb)?$")
_RATES = (64, 96, 112, 128, 160, 192, 224, 256, 320)
# Signs that stand for letters within a word.
_LIKE = {"$": "s", "!": "i"}
_IN_WORDS = re.compile(r"(?<=\w)[$!](?=\w)")


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The words between two separators, folded."""

    words: tuple[str, ...]
    bracketed: bool
    # It follows another one behind a slash: a second name, or a second album.
    beside: bool = False


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a title says, by the roles of its words."""

    segments: tuple[Segment, ...]
    years: frozenset[int] = frozenset()
    # First and last year of what a set holds.
    span: tuple[int, int] | None = None
    lossless: bool | None = None
    both_formats: bool = False
    rate_kbps: int | None = None
    all_words: frozenset[str] = frozenset()
    text: str = ""
    albums: int | None = None
    is_set: bool = False
    concert: bool = False
    disc: int | None = None
    image: bool = False
    analogue: bool = False
    markers: tuple[str, ...] = field(default=())


def numbered(text: str) -> list[str]:
    """Folded words, with numbers written one way, Cyrillic in Latin letters, without "the"."""
    latin = "".join(
        words.CYRILLIC.get(char, char) for char in unicodedata.normalize("NFC", text).lower()
    )
    split = titles.numbered(fold(_IN_WORDS.sub(lambda found: _LIKE[found.group()], latin))).split()
    return [word for word in split if word not in ("the", "and")] or split


@lru_cache(maxsize=4096)
def read(title: str) -> Reading:
    """Take a title apart; one of any length takes bounded time."""
    text = titles.one_line(unicodedata.normalize("NFKC", title[: titles.LONGEST]))
    if " " not in text:
        # The scene's form: underscores are blanks, hyphens separate.
        text = titles.one_line(text.replace("-", " - ").replace("_", " "))
    text = _DATE.sub(r"\1 concertdate", text)
    years = _YEARS_APART if _SET.search(text) else _YEARS
    text = years.sub(r" \1to\2 ", text)
    text = _ISSUE.sub(r" \1 reissue \2 ", text)
    segments = tuple(_segments(text))
    return _with_roles(segments)


def _segments(text: str) -> Iterator[Segment]:
    for piece, bracketed in _pieces(text):
        if bracketed:
            yield Segment(words=tuple(_folded(piece)), bracketed=True)
            continue
        for part in _DASHES.split(_NUMBERS.sub(_range, piece)):
            the_last = _THE_LAST.fullmatch(part.strip())
            plain = the_last.group(1) if the_last else part
            for place, name in enumerate(_SLASH.split(plain)):
                found = tuple(_folded(name))
                if found:
                    yield Segment(words=found, bracketed=False, beside=place > 0)


def _folded(text: str) -> list[str]:
    return numbered(_GUESTS.sub("", text.replace("_", " "), count=1)) if text.strip() else []


def _range(found: re.Match[str]) -> str:
    first, last = int(found.group(1)), int(found.group(2))
    return f"{first}upto{last}" if first < last <= 50 else found.group(0)


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """The text in and outside of brackets, in order; what is in two is in the inner one."""
    start, closing = 0, ""
    for place, char in enumerate(text):
        if char in _OPENING:
            if text[start:place].strip():
                yield text[start:place], bool(closing) and closing != _QUOTED
            start, closing = place + 1, _OPENING[char]
        elif closing and char == closing:
            yield text[start:place], closing != _QUOTED
            start, closing = place + 1, ""
    if text[start:].strip():
        yield text[start:], bool(closing)


def _with_roles(segments: tuple[Segment, ...]) -> Reading:
    every = [word for segment in segments for word in segment.words]
    text = f" {' '.join(every)} "
    years = frozenset(int(word) for word in every if re.fullmatch(_YEAR, word))
    spans = [
        tuple(map(int, word.split("to"))) for word in every if re.fullmatch(r"\d{4}to\d{4}", word)
    ]
    known = frozenset(every)
    lossless, lossy = bool(known & words.LOSSLESS), bool(known & words.LOSSY)
    rate = _rate(every, lossless=lossless)
    return Reading(
        segments=segments,
        years=years,
        span=(spans[0][0], spans[0][1]) if spans else None,
        lossless=True if lossless else False if lossy or rate else None,
        both_formats=lossless and lossy,
        rate_kbps=rate,
        all_words=known,
        text=text,
        albums=_count(every),
        is_set=bool(known & words.CONTAINER)
        or _count(every) is not None
        or any("upto" in word for word in every),
        concert="concertdate" in known,
        disc=_disc(every),
        image="image" in known,
        analogue=bool(known & {"vinyl", "lp", "cassette", "tape"}),
        markers=tuple(_markers(text, every)),
    )


def _rate(every: list[str], *, lossless: bool) -> int | None:
    for word, following in pairwise([*every, ""]):
        if word in words.VARIABLE_KBPS:
            return words.VARIABLE_KBPS[word]
        found = _RATE.match(word)
        said = word != (found.group(1) if found else "") or following in ("kbps", "kbit", "kb")
        if found and int(found.group(1)) in _RATES and (said or not lossless):
            return int(found.group(1))
    return None


def _count(every: list[str]) -> int | None:
    """How many albums it says that it holds."""
    for word, following in pairwise(every):
        if word.isdecimal() and following in words.COUNTED and following != "album":
            return int(word)
    return None


def _disc(every: list[str]) -> int | None:
    for word, following in pairwise([*every, ""]):
        if found := _DISC.match(word):
            return int(found.group(1))
        if word in ("disc", "disk", "cd") and following.isdecimal() and int(following) < 20:
            return int(following)
        if word == "side" and len(following) == 1:
            return 1
    return None


def _markers(text: str, every: list[str]) -> Iterator[str]:
    for phrase, marker in words.PHRASES.items():
        if f" {' '.join(numbered(phrase))} " in text:
            yield marker
    yield from (words.MARKERS[word] for word in every if word in words.MARKERS)
