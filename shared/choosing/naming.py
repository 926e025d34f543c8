"""Whether a title names the wanted artist and album, each in its own place, and what else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from shared.choosing import vocabulary as words
from shared.choosing.model import Wanted
from shared.choosing.title import Reading, numbered
from shared.matching.titles import BRACKETED, one_line

# The segments that name, each with whether it follows another one behind a slash.
Row: TypeAlias = list[tuple[tuple[str, ...], bool]]

_VARIOUS = ("va", "various", "various artists", "v a")
# At the end of the catalog's names; what it says is no word of the name.
_SUFFIX = re.compile(
    r"\s+-\s+(?:ep|single|remastered.*|.*\bremaster(?:ed)?\b.*|.*\bedition)$|\s+e\.?\s?p\.?$"
    r"|\s+(?:feat|ft)\.?\s.*$",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?:19|20)\d\d(?:to(?:19|20)\d\d)?")
_COUNT = re.compile(r"\d{1,3}(?:cd|lp|disc|discs)?")


@dataclass(frozen=True, kw_only=True)
class Name:
    """What an album of the catalog is called, taken apart."""

    artists: tuple[tuple[str, ...], ...]
    core: tuple[str, ...]
    # How often each kind of them is in artist and album.
    markers: Counter[str]
    edition: frozenset[str]
    is_ep: bool
    various: bool

    @property
    def self_titled(self) -> bool:
        """Whether the artist's name alone would name it, too."""
        return self.core in self.artists


@dataclass(frozen=True, kw_only=True)
class Named:
    """How a title names it."""

    artist: bool
    album: bool
    # Words of the name's part that nothing explains.
    foreign: tuple[str, ...] = ()
    # A second album stands beside it.
    pair: bool = False


def name_of(wanted: Wanted) -> Name:
    """The name, without what says nothing of the recording."""
    inner = " ".join(BRACKETED.findall(wanted.album))
    plain = plain_album(wanted.album)
    added = numbered(inner)
    every = [*numbered(wanted.artist), *numbered(wanted.album)]
    text = f" {' '.join(every)} "
    markers = Counter(words.MARKERS[word] for word in every if word in words.MARKERS)
    markers.update(mark for phrase, mark in words.PHRASES.items() if f" {phrase} " in text)
    kept = [word for word in added if not _is_year(word) and _tells(word)]
    artist = tuple(numbered(wanted.artist))
    return Name(
        artists=tuple(_joint(wanted.artist, artist)),
        core=tuple(numbered(plain) or kept or numbered(wanted.album)),
        markers=markers,
        edition=frozenset(added) & words.EDITION
        | frozenset(numbered(wanted.album)) & words.REMASTER,
        is_ep=bool(re.search(r"\be\.?p\b", wanted.album, re.IGNORECASE)),
        various=" ".join(artist) in _VARIOUS,
    )


def plain_album(album: str) -> str:
    """The catalog's name of an album without its editions, guests and kinds."""
    return _SUFFIX.sub("", one_line(BRACKETED.sub(" ", album)))


def _tells(word: str) -> bool:
    return word not in words.EDITION | words.NEUTRAL and word not in words.MARKERS


def _is_year(word: str) -> bool:
    return _YEAR.fullmatch(word) is not None


def _joint(text: str, whole: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The artist, and several of them in the other order."""
    yield whole
    parts = [tuple(numbered(part)) for part in re.split(r"&|,|\band\b|\bx\b", text)]
    if len(parts) == 2 and all(parts):
        yield (*parts[1], *parts[0])


def named(name: Name, reading: Reading) -> Named:
    """How the title names the album; the best of the ways in which it may be read."""
    rows = _name_rows(name, reading)
    found = Named(artist=False, album=False)
    for row in rows:
        for rest in _without_artist(name, row):
            each = _album_in(name, rest, reading)
            if (each.album, -len(each.foreign)) >= (
                found.album,
                -len(found.foreign),
            ) or not found.artist:
                found = each
    return found


def _name_rows(name: Name, reading: Reading) -> Iterator[Row]:
    """The segments that name: without brackets, cut where formats and years begin."""
    own = {word for artist in name.artists for word in artist} | set(name.core)
    row: Row = []
    others: Row = []
    for segment in reading.segments:
        if segment.bracketed:
            if len(row) > 1 and not _cut(segment.words, own):
                break  # what follows formats is the uploader's
            if row and _in_another_script(row[-1][0], segment.words):
                others[-1] = (segment.words, row[-1][1])
            continue
        kept = _cut(segment.words, own)
        if kept:
            row.append((kept, segment.beside))
            others.append(row[-1])
        elif len(row) > 1:
            break
    yield row
    if others != row:
        yield others


def _in_another_script(name: Sequence[str], bracket: Sequence[str]) -> bool:
    """Whether a bracket says a name again, in letters that the other has none of."""
    return "".join(name).isascii() != "".join(bracket).isascii()


def _cut(segment: tuple[str, ...], own: set[str]) -> tuple[str, ...]:
    for place, word in enumerate(segment):
        technical = word in words.LOSSLESS | words.LOSSY | words.NOT_AUDIO or _is_year(word)
        technical = technical or word in words.VARIABLE_KBPS or word in ("320", "256", "192", "web")
        if technical and word not in own:
            return segment[:place]
    return segment


def _without_artist(name: Name, row: Row) -> Iterator[Row]:
    """The row without the artist, for each place that the artist fills."""
    if name.various:
        yield list(row)  # often it is not said
    for place, (segment, beside) in enumerate(row):
        for artist in name.artists:
            names = (
                [artist] if not name.various else [("va",), ("various", "artists"), ("various",)]
            )
            for each in names:
                rest = _taken_from(segment, each, name.core)
                if rest is not None:
                    others = [*row[:place], *([(rest, beside)] if rest else []), *row[place + 1 :]]
                    # A second spelling of the artist, behind a slash.
                    yield [
                        (words_, slash) for words_, slash in others if not slash or words_ != each
                    ]


def _taken_from(
    segment: tuple[str, ...], artist: tuple[str, ...], core: tuple[str, ...]
) -> tuple[str, ...] | None:
    if segment[: len(artist)] == artist:
        return segment[len(artist) :]
    # No separators, the album first.
    if segment[-len(artist) :] == artist and segment[: -len(artist)] == core:
        return core
    return None


def _album_in(name: Name, rest: Row, reading: Reading) -> Named:
    flat = [word for segment, _ in rest for word in segment]
    place = _find(flat, name.core)
    if place is None:
        return Named(artist=True, album=False, foreign=tuple(_foreign(flat)))
    others = flat[:place] + flat[place + len(name.core) :]
    partner = _partner(name, rest)
    foreign = [word for word in _foreign(others) if word not in partner]
    various = "va" in reading.all_words and not name.various
    return Named(artist=not various, album=True, foreign=tuple(foreign), pair=bool(partner))


def _partner(name: Name, rest: Row) -> set[str]:
    """The words of the album that stands beside this one, behind or before a slash."""
    for (first, _), (second, slash) in pairwise(rest):
        if slash and first != second and name.core in (first, second):
            return set(second if first == name.core else first) - set(name.core)
    return set()


def _find(flat: list[str], core: tuple[str, ...]) -> int | None:
    for place in range(len(flat) - len(core) + 1):
        if all(_same(a, b) for a, b in zip(flat[place:], core, strict=False)):
            return place
    return None


def _same(word: str, wanted: str) -> bool:
    first, sign, last = word.partition("upto")
    if sign and wanted.isdecimal():
        return int(first) <= int(wanted) <= int(last)
    return word == wanted


def _foreign(others: Sequence[str]) -> Iterator[str]:
    harmless = (
        words.EDITION | words.NEUTRAL | words.CONTAINER | words.COUNTED | words.MARKERS.keys()
    )
    for word in others:
        if word not in harmless and not _is_year(word) and not _COUNT.fullmatch(word):
            yield word
        elif word.isdecimal() and not _is_year(word) and len(word) < 3 and others[-1:] == [word]:
            yield word  # a number behind the name is another part of a series
