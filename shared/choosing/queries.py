"""What an indexer is asked: as few questions as will do.

Indexers want every word of a question in the title. A word too many loses right releases; a word
too few costs nothing, because what comes back is chosen from. So no format, no year where it is not
needed, and only the core of the name.
"""

from __future__ import annotations

import re
import unicodedata

from shared.choosing import vocabulary as words
from shared.choosing.model import Wanted
from shared.choosing.naming import name_of, plain_album

_APOSTROPHES = re.compile("[`\u2018\u2019\u00b4\u02bc\u2032]")
_NO_WORD = re.compile(r"[^\w']+")
_JOINT = re.compile(r"&|,|/|\bfeat\b\.?|\bx\b", re.IGNORECASE)
# Below, a name is a part of too many others.
_SHORT_ALBUM, _SHORT_ARTIST, _FEW_WORDS = 4, 5, 3


def for_album(wanted: Wanted) -> list[str]:
    """The questions for an album, the next only if one gave nothing suitable; each asked once."""
    name = name_of(wanted)
    album = _asked(plain_album(wanted.album))
    artist = "" if name.various else _asked(_JOINT.split(wanted.artist)[0])
    first = _joined(artist, album, _year(wanted, album, various=name.various, artist=artist))
    others = () if name.various else (_artist_wide(artist), _artist_wide(_second(wanted.artist)))
    whole = "" if name.various else _asked(_latin(wanted.artist))
    again = _joined(whole, _asked(_latin(plain_album(wanted.album)))).replace("'", "")
    return list(dict.fromkeys(filter(None, (first, *others, again))))


def artist_wide(wanted: Wanted) -> list[str]:
    """Those of the questions that serve every album of the artist."""
    if name_of(wanted).various:
        return []
    first = _artist_wide(_asked(_JOINT.split(wanted.artist)[0]))
    return [each for each in (first, _artist_wide(_second(wanted.artist))) if each]


def _year(wanted: Wanted, album: str, *, various: bool, artist: str) -> str:
    """The year, where the name alone would find everything else as well."""
    few = various and len(album.split()) < _FEW_WORDS
    short = sum(char.isalpha() for char in album) < _SHORT_ALBUM
    if wanted.year is not None and (few or short or album.casefold() == artist.casefold()):
        return str(wanted.year)
    return ""


def _artist_wide(artist: str) -> str:
    """It serves every album of that artist, and finds sets and odd spellings."""
    return f"{artist} discography" if 0 < len(artist) < _SHORT_ARTIST else artist


def _second(artist: str) -> str:
    parts = [part for part in _JOINT.split(artist) if part.strip()]
    return _asked(parts[1]) if len(parts) > 1 else ""


def _asked(text: str) -> str:
    """A name as it is asked for: without accents and signs, but with its apostrophes."""
    whole = unicodedata.normalize("NFC", _APOSTROPHES.sub("'", text))
    plain = "".join(map(_plain, whole))
    split = _NO_WORD.sub(" ", plain.replace("_", " ")).split()
    if len(split) > 1 and split[0].casefold() == "the":
        split = split[1:]
    return " ".join(split)


def _plain(char: str) -> str:
    # A Cyrillic letter with a sign is another letter.
    if char.lower() in words.CYRILLIC:
        return char
    return "".join(c for c in unicodedata.normalize("NFKD", char) if not unicodedata.combining(c))


def _latin(text: str) -> str:
    return "".join(words.CYRILLIC.get(char.lower(), char) for char in text)


def _joined(*parts: str) -> str:
    return " ".join(filter(None, parts))
