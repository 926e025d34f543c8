"""Texts whose encoding nothing names: read where one reading alone is plausible, else not at all.

For the few words of a track list, the first answer of a detector is often wrong. So all encodings
are compared: one stays if its letters are those of one language, in words as a language writes
them; between scripts, charset-normalizer's measure of the usual letters decides. A text is read if
all encodings that stay read it alike. Wrong letters would be worse than none: they name another
song.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from charset_normalizer import from_bytes

# What most programs write, and what is rare beside it.
_USUAL = (
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257"),
    *("cp932", "cp936", "cp949", "cp950", "iso8859_7"),
)
_OLDER = ("koi8_r", "cp866", "cp850", "cp852", "cp857", "iso8859_2")
# More adds nothing to what the encoding is, and no track list is longer than the second.
_SAMPLE_BYTES = 2 * 1024
_MOST_BYTES = 32 * 1024
# Parts of the characters beside ASCII: as many may be unusual, and so many more than at the best.
_UNUSUAL, _MORE = 0.12, 0.05
# The library's measure of a language's usual letters, 0 to 1: a difference that is no accident.
_COHERENCE = 0.15
# So many characters, all in the smaller set of two encodings, are not there by accident.
_ENOUGH_CHARS = 12

# The letters beside a to z that each language uses every day.
_LATIN = tuple(
    frozenset(letters)
    for letters in (
        "áčďéěíňóřšťúůýž",
        "áäčďéíľňóôšťúýž",
        "ąćęłńóśźż",
        "áéíóöőúüű",
        "čćđšž",
        "ăâîșțşţ",
        "äöüßé",
        "àâçèéêëîïôùûœ",
        "áéíñóúü",
        "àèéìòù",
        "àáâãçéêíóôõú",
        "àçèéíïòóúü",
        "èéëïóöü",
        "åäöé",
        "æøåé",
        "áæðéíóöúýþ",
        "çğ\u0131öşüâîi\u0307",
        "ąčęėįšųūž",
        "āčēģīķļņšūž",
        "äõöšüž",
    )
)
_CYRILLIC = frozenset("абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґўђјљњћџ")
_GREEK = frozenset("αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋ")
# The characters of the double-byte encodings in daily use, by their codes; smaller sets first.
_DAILY: Mapping[str, tuple[tuple[int, int], ...]] = {
    "cp949": ((0xB0A1, 0xC8FE),),
    "cp936": ((0xB0A1, 0xD7F9),),
    "cp950": ((0xA440, 0xC67E),),
    "cp932": ((0x829F, 0x8396), (0x889F, 0x9872)),
}
_WORD = re.compile(r"[^\W\d_]+")
# Letters that are at the end of a word only, and letters that begin none.
_FINAL = frozenset("ךםןףץςةى")
_NOT_FIRST = frozenset("ъыьςةى")
_QUOTES = re.compile("[„“”«»]")
_SIGNS = frozenset(
    "\u2018\u2019“”„«»\u2013—·\u00b4№©½¿¡…°™®"
    "\u3000、。・「」『』ー\uff01\uff08\uff09\uff0c\uff1a\uff1f\uff5e"
)
# Signs on the wrong side of a letter, or a dash that joins a word on one side only.
_L = r"[^\W\d_]"
_MISPLACED = re.compile(
    rf"{_L}[„¡¿«]|[»”…°™®]{_L}|(?<!{_L})[\u2019\u00b4]{_L}"
    rf"|{_L}[\u2013—](?!{_L})|(?<!{_L})[\u2013—]{_L}"
)
# A sign of daily use in the middle of a Latin word.
_WITHIN_WORD = re.compile(r"[A-Za-z][a-z][^\x00-\x7f]|[^\x00-\x7f][a-z]")


@dataclass(frozen=True, kw_only=True)
class _Readings:
    """All texts as one encoding reads them."""

    encoding: str
    coherence: float
    # Of the letters beside ASCII: "LATIN", "CYRILLIC", "GREEK", "OTHER" without cases, or "" where
    # there are signs only.
    script: str
    # Whether letters that are not Latin are all capital or all small: another encoding exchanges
    # them for others, small for capital.
    one_case: bool
    alphabet: frozenset[str]
    # How much is unusual; besides, how many texts begin with a small letter; and how many
    # characters there are beside ASCII.
    odd: int
    low: int
    count: int


def read(texts: Sequence[bytes]) -> list[str | None]:
    """Each text, or None where its letters are not sure. All are in one encoding."""
    other = list(dict.fromkeys(text for text in texts if not text.isascii()))
    in_utf8 = sum(_in_utf8(text) is not None for text in other)
    if 2 * in_utf8 > len(other) or not other:
        return _unmixed([_in_utf8(text) for text in texts])
    plausible = _plausible(_first(other, _SAMPLE_BYTES))
    known = {text: _agreed(text, plausible) for text in _first(other, _MOST_BYTES)}
    return [text.decode() if text.isascii() else known.get(text) for text in texts]


def _unmixed(texts: Sequence[str | None]) -> list[str | None]:
    """The texts, or what they were before a program took their bytes for Western letters.

    Then they were in UTF-8, or the letters that they have now are no language's.
    """
    mixed = {text: raw for text in texts if text and not text.isascii() and (raw := _western(text))}
    if not mixed or any(text and not text.isascii() and text not in mixed for text in texts):
        return list(texts)
    before = {text: _in_utf8(raw) for text, raw in mixed.items()}
    if None in before.values():
        sample = _first(mixed.values(), _SAMPLE_BYTES)
        usual = _usual(_possible(sample, ["cp1252"]))
        plausible = [] if usual else _plausible(sample)
        if not plausible or any(one.script == "LATIN" for one in plausible):
            return list(texts)
        known = {raw: _agreed(raw, plausible) for raw in _first(mixed.values(), _MOST_BYTES)}
        before = {text: known.get(raw) for text, raw in mixed.items()}
    return [before.get(text, text) if text else None for text in texts]


def _western(text: str) -> bytes | None:
    """The bytes that cp1252 has for the text; bytes without a character are kept as controls."""
    try:
        return b"".join(
            char.encode("latin-1" if "\x80" <= char <= "\x9f" else "cp1252") for char in text
        )
    except UnicodeEncodeError:
        return None


def _in_utf8(text: bytes) -> str | None:
    found = _decoded(text, "utf-8")
    # Characters that few people know are another encoding's bytes by accident.
    return None if found and max(found) >= "\U00020000" else found


def _decoded(text: bytes, encoding: str) -> str | None:
    try:
        return text.decode(encoding)
    except UnicodeDecodeError:
        return None


def _first(texts: Iterable[bytes], most_bytes: int) -> list[bytes]:
    """The first of the texts, as many as the bytes allow, and at least a part of one."""
    taken: list[bytes] = []
    for text in texts:
        if most_bytes <= 0:
            break
        taken.append(text if len(text) <= most_bytes or taken else text[:most_bytes])
        most_bytes -= len(text)
    return taken


def _agreed(text: bytes, plausible: Sequence[_Readings]) -> str | None:
    found = {
        reading: one
        for one in plausible
        if (reading := _decoded(text, one.encoding)) is not None
        and (one.encoding in _DAILY or not _odd(reading))
    }
    if len(found) != 1:
        return None
    ((reading, of),) = found.items()
    foreign = of.encoding not in _DAILY and _foreign([reading], of.alphabet)
    return None if of.one_case or foreign else reading


def _plausible(texts: Sequence[bytes]) -> list[_Readings]:
    """The encodings in which the texts may be."""
    found = _possible(texts, _USUAL)
    usual = _usual(found)
    if not usual or any(one.script in {"OTHER", ""} or one.one_case for one in usual):
        usual = _usual([*found, *_possible(texts, _OLDER)])
    return _in_the_smallest(texts, usual)


def _possible(texts: Sequence[bytes], encodings: Sequence[str]) -> list[_Readings]:
    if not texts:
        return []
    matches = from_bytes(
        b"\n".join(texts),
        cp_isolation=list(encodings),
        preemptive_behaviour=False,
        enable_fallback=False,
    )
    coherence = {
        # The library calls cp936 gbk.
        "cp936" if name == "gbk" else name: match.coherence
        for match in matches
        for name in (match.encoding, *match.could_be_from_charset)
    }
    return [
        _readings(texts, name, coherence.get(name, 0.0))
        for name in encodings
        if all(_decoded(text, name) is not None for text in texts)
    ]


def _readings(texts: Sequence[bytes], encoding: str, coherence: float) -> _Readings:
    read_ = [text.decode(encoding) for text in texts]
    other = [char for text in read_ for char in text if not char.isascii()]
    script = _script(other)
    alphabet = _alphabet(read_, script)
    if encoding in _DAILY:
        odd = sum(_rare(text, encoding) for text in read_)
    else:
        odd = sum(map(_odd, read_)) + _mixed(read_, alphabet)
    return _Readings(
        encoding=encoding,
        coherence=coherence,
        script=script,
        one_case=script in {"CYRILLIC", "GREEK"} and _in_one_case(other),
        alphabet=alphabet,
        odd=odd,
        low=sum(map(_starts_low, read_)),
        count=len(other),
    )


def _usual(found: Sequence[_Readings]) -> list[_Readings]:
    """Those that are about as usual as the best. Another script is a larger difference."""
    best = min(found, key=lambda one: one.odd + one.low, default=None)
    if best is None or best.odd + best.low > _UNUSUAL * best.count:
        return []
    most = best.odd + best.low
    # Letters of one case look plausible more easily: then others may begin with a small letter.
    easily = best.script == "OTHER" or best.one_case
    stay = [
        one for one in found if one.odd + (0 if easily else one.low) <= most + _MORE * one.count
    ]
    least = max(one.coherence for one in stay) - _COHERENCE
    scripts = {one.script for one in stay}
    return [one for one in stay if len(scripts) == 1 or one.coherence > least]


def _in_the_smallest(texts: Sequence[bytes], found: list[_Readings]) -> list[_Readings]:
    """One of several double-byte encodings, if many characters are in the smaller set of one."""
    double = sorted(found, key=lambda one: [*_DAILY, one.encoding].index(one.encoding))
    if not double or any(one.encoding not in _DAILY for one in double):
        return found
    chars = {char for text in texts for char in text.decode(double[0].encoding)}
    return double[:1] if len(chars) >= _ENOUGH_CHARS else found


def _rare(text: str, encoding: str) -> int:
    """How many characters are not in daily use; all, if none is."""
    other = [char for char in text if not char.isascii()]
    signs = sum(char in _SIGNS for char in other)
    daily = sum(_is_daily(char, encoding) for char in other) - len(_WITHIN_WORD.findall(text))
    return len(other) - signs - daily if daily > 0 else len(other)


def _is_daily(char: str, encoding: str) -> bool:
    code = int.from_bytes(char.encode(encoding), "big")
    return any(first <= code <= last for first, last in _DAILY[encoding])


@lru_cache(maxsize=4096)
def _script_of(char: str) -> str:
    return unicodedata.name(char, "?").partition(" ")[0]


def _in_one_case(chars: Sequence[str]) -> bool:
    capitals = sum(map(str.isupper, chars))
    return capitals == 0 or 2 * capitals > len(chars)


def _script(chars: Iterable[str]) -> str:
    counts = Counter(_script_of(char) for char in chars if char.isalpha())
    most = max(sorted(counts), key=lambda name: counts[name], default="")
    return most if most in {"LATIN", "CYRILLIC", "GREEK", ""} else "OTHER"


def _alphabet(texts: Sequence[str], script: str) -> frozenset[str]:
    """The letters of the language that has the most of the texts' letters."""
    match script:
        case "CYRILLIC":
            return _CYRILLIC
        case "GREEK":
            return _GREEK
        case "OTHER":
            return frozenset(char for text in texts for char in text if _is_right_to_left(char))
        case _:
            return min(_LATIN, key=lambda letters: _foreign(texts, letters))


def _foreign(texts: Sequence[str], alphabet: frozenset[str]) -> int:
    return sum(
        char.isalpha() and not char.isascii() and char not in alphabet
        for text in texts
        for char in text.lower()
    )


def _mixed(texts: Sequence[str], alphabet: frozenset[str]) -> int:
    """The foreign letters; those count half that are not foreign in their own text's language."""
    alone = sum(_foreign([text], _alphabet([text], "LATIN")) for text in texts)
    together = _foreign(texts, alphabet)
    return together if alphabet not in _LATIN else alone + (together - alone) // 2


def _is_right_to_left(char: str) -> bool:
    return unicodedata.bidirectional(char) in {"R", "AL"}


def _starts_low(text: str) -> bool:
    word = _WORD.search(text)
    return word is not None and word[0][0].islower() and not word[0][0].isascii()


def _odd(text: str) -> int:
    """How much in the text is written as no language writes."""
    signs = sum(not (char.isascii() or char.isalpha() or char in _SIGNS) for char in text)
    signs += len(_MISPLACED.findall(text)) + len(_QUOTES.findall(text)) % 2
    return signs + sum(_is_odd(word) for word in _WORD.findall(text) if not word.isascii())


@lru_cache(maxsize=4096)
def _is_odd(word: str) -> bool:
    low = word.lower()
    if word[1:] != word[1:].lower() and word != word.upper():
        return True
    if low[0] in _NOT_FIRST or any(char in _FINAL for char in low[:-1]):
        return True
    scripts = {_script_of(char) for char in word}
    bare = not any(char.isascii() for char in word)
    return len(scripts) > 1 or (scripts == {"LATIN"} and bare and len(word) > 2)
