"""Styles of numbers that only the names of a whole folder prove.

"0101 Title", "T01 Title", "Title 01" and the sides "A", "B1" may each be a title: they are numbers
where nearly all names of the folder have them, and no number twice. Then they are written as
`names` reads them, with the number first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# A style counts if this part of the names, and at least so many, have it.
_COMMON = 0.7
_COMMON_FILES = 3

_NUMBER_FIRST = re.compile(r"[\[(#]*\d")
_DISC_AND_NUMBER = re.compile(r"(\d\d)(\d\d)(?![^\W_])[\s._)\]-]*")
_LETTERED = re.compile(r"([^\W\d_]{1,5})(\d{1,3})(?![^\W_])[\s._)\]-]*")
_TRAILING = re.compile(r"(?<!\d)(\d{1,3})[\])]?$")
_WORD = re.compile(r"[^\W_]")
_SIDE = re.compile(r"([A-Z])(\1?)(\d{0,2})(?![^\W_])(?P<gap>[\])]?[\s._:\u2013\u2014-]*)")
# Letters before a number that mean something else, or that `names` reads.
_NO_PREFIX = frozenset(
    ("cd", "d", "disc", "disk", "lp", "no", "nr", "number", "op", "part", "pt", "track", "vol")
)
_SIDES_OF_ONE_LETTER = frozenset("abcdefgh")


@dataclass(frozen=True, kw_only=True)
class Stem:
    """A name, and the same name as it is read."""

    whole: str
    read: str
    # Whether `whole` may be the title as well, as in "Improvisation 2"; the rest is less sure then.
    titled: bool = False


def numbered_first(stems: Sequence[str], folders: Sequence[str]) -> list[Stem]:
    """The names in their order, with the numbers first where the names of their folder prove it."""
    found = _restyled(stems)
    if any(stem.read != stem.whole for stem in found) or len({*folders}) < 2:
        return found
    places: dict[str, list[int]] = {}
    for place, folder in enumerate(folders):
        places.setdefault(folder, []).append(place)
    for within in places.values():
        restyled = _restyled([stems[place] for place in within])
        for place, stem in zip(within, restyled, strict=True):
            found[place] = stem
    return found


def _restyled(stems: Sequence[str]) -> list[Stem]:
    # Copies in several formats have one name.
    once = list(dict.fromkeys(stems))
    for style in (_discs_and_numbers, _after_a_prefix, _lettered, _sides, _trailing):
        found = {stem.whole: stem for stem in style(once)}
        if found:
            return [found.get(stem, Stem(whole=stem, read=stem)) for stem in stems]
    return [Stem(whole=stem, read=stem) for stem in stems]


def _enough(found: Sequence[object], stems: Sequence[str]) -> bool:
    return len(found) >= max(_COMMON_FILES, _COMMON * len(stems))


def _discs_and_numbers(stems: Sequence[str]) -> Iterator[Stem]:
    """ "0203 Title": disc 2, number 3. Years are no discs: discs are counted from one."""
    found = [
        (stem, match)
        for stem in stems
        if (match := _DISC_AND_NUMBER.match(stem)) and match[2] != "00"
    ]
    discs = {int(match[1]) for _, match in found}
    of_one = len(discs) == 1 and discs <= {*range(1, 10)}
    proven = _enough(found, stems) and (of_one or discs == {*range(1, len(discs) + 1)})
    lone = len(stems) < _COMMON_FILES and of_one
    if len({match[0][:4] for _, match in found}) < len(found) or not (proven or lone):
        return
    for stem, match in found:
        read = f"{int(match[1])}-{match[2]} - {stem[match.end() :]}".rstrip(" -")
        yield Stem(whole=stem, read=read, titled=not proven)


def _after_a_prefix(stems: Sequence[str]) -> Iterator[Stem]:
    """ "Artist - Album 01 Title": the same text before the number of each name."""
    if len(stems) < _COMMON_FILES:
        return
    shared = _common_prefix([stem.casefold() for stem in stems]).rstrip("0123456789")
    if not shared or shared[-1].isalnum() or shared != stems[0][: len(shared)].casefold():
        return
    rest = [stem[len(shared) :] for stem in stems]
    if all(text[:1].isdigit() for text in rest):
        for stem, text in zip(stems, rest, strict=True):
            yield Stem(whole=stem, read=text)


def _common_prefix(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    same = next(
        (at for at, pair in enumerate(zip(first, last, strict=False)) if len({*pair}) > 1), None
    )
    return first[:same]


def _lettered(stems: Sequence[str]) -> Iterator[Stem]:
    """ "T01 Title", "ZT001-Title": the same letters at the number of each name."""
    found = [
        (stem, match)
        for stem in stems
        if (match := _LETTERED.match(stem)) and match[1].casefold() not in _NO_PREFIX
    ]
    letters = {match[1].casefold() for _, match in found}
    numbers = {int(match[2]) for _, match in found}
    if len(letters) != 1 or not _enough(found, stems) or len(numbers) < len(found):
        return
    if letters <= _SIDES_OF_ONE_LETTER:
        return
    for stem, match in found:
        yield Stem(whole=stem, read=f"{match[2]} - {stem[match.end() :]}".rstrip(" -"))


def _sides(stems: Sequence[str]) -> Iterator[Stem]:
    """ "A", "B1", "AA2": sides with one track have no number, and AA is the side after A.

    Only for a whole record: sides and numbers without a gap. `names` reads "A1" among its like.
    """
    found = [match for stem in stems if (match := _SIDE.match(stem))]
    if len(found) < max(2, len(stems)) or not any(match[2] or not match[3] for match in found):
        return
    places = [(match[1] + match[2], int(match[3] or 0)) for match in found]
    order = sorted({*places}, key=lambda place: (_side_order(place[0], places), place[1]))
    if len(order) < len(places) or not _without_gap(order):
        return
    running_number = {place: running for running, place in enumerate(order, start=1)}
    for stem, match, place in zip(stems, found, places, strict=True):
        running = running_number[place]
        text = stem[match.end() :]
        # "A Forest": the letter may be a word.
        titled = not match[3] and not match["gap"].strip()
        yield Stem(whole=stem, read=f"{running:02} - {text}".rstrip(" -"), titled=titled)


def _side_order(side: str, places: Sequence[tuple[str, int]]) -> tuple[int, str]:
    # On a double A-side AA is the second side; in a box the sides after Z begin with AA.
    double = len(side) > 1 and any(other == "B" for other, _ in places)
    return (1 if double else 0), side


def _without_gap(order: Sequence[tuple[str, int]]) -> bool:
    sides = list(dict.fromkeys(side for side, _ in order))
    for side in sides:
        numbers = [number for other, number in order if other == side]
        if numbers not in ([0], [*range(1, len(numbers) + 1)]):
            return False
    if sides == ["A", "AA"]:
        return True
    singles = [side for side in sides if len(side) == 1]
    doubles = [side[0] for side in sides if len(side) == 2]
    wanted = [chr(ord("A") + place) for place in range(len(singles))]
    return singles == wanted and (not doubles or (len(singles) == 26 and _is_run(doubles)))


def _is_run(letters: Sequence[str]) -> bool:
    return list(letters) == [chr(ord("A") + place) for place in range(len(letters))]


def _trailing(stems: Sequence[str]) -> Iterator[Stem]:
    """ "Title 01", "Title (01)": a number at the end of each name, all of them from one on."""
    first = sum(_NUMBER_FIRST.match(stem) is not None for stem in stems)
    if first > (1 - _COMMON) * len(stems):
        return
    found = [
        (stem[: match.start()].rstrip(" ._-(["), match[1], stem)
        for stem in stems
        if (match := _TRAILING.search(stem)) and _WORD.search(stem[: match.start()])
    ]
    numbers = sorted(int(number) for _, number, _ in found)
    padded = any(number.startswith("0") for _, number, _ in found)
    whole = numbers == [*range(1, len(numbers) + 1)]
    if not _enough(found, stems) or len({*numbers}) < len(numbers):
        return
    if not (padded or whole):
        return
    for text, number, stem in found:
        yield Stem(whole=stem, read=f"{int(number):02} - {text}", titled=True)
