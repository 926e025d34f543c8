"""What the folders of a file say: other recordings, editions, and the album that it is of.

"Instrumentals/01 Song.flac" is not the song, "Bonus/01 Song.flac" is a second choice for it, and
"MP3/01 Song.mp3" is a copy of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from shared.matching.titles import BRACKETED, LONGEST, fold, numbered, title_of
from shared.matching.vocabulary import PART_WORDS, marks_in, says_nothing, unmarked

# Marks of titles that, in the name of a folder, say nothing of its recordings: "Covers" are scans,
# "Alternative" is a genre.
_NOT_OF_FOLDERS = frozenset({"single", "cover", "alternate"})
# Where copies and extracts lie, beside the album.
_ASIDE = frozenset(
    [
        *("bonus", "bonuses", "extra", "extras", "sampler", "samplers", "sample", "samples"),
        *("promo", "promos", "single", "singles", "ep", "eps", "rarities", "various", "va"),
        *("compilation", "compilations", "collection", "collections", "hits", "best", "greatest"),
    ]
)
_FILLER = frozenset(
    [
        *("the", "a", "and", "of", "versions", "tracks", "song", "songs", "albums", "recording"),
        *("recordings", "music", "files", "side", "sides", "only", "hi", "res", "hires", "b"),
    ]
)
_DISC = re.compile(r"\b(?:cd|dis[ck]|disque|disco|dvd|lp|диск)s? ?\d{0,2}\b")
_NUMBERED_DISC = re.compile(r"(?:cd|dis[ck]|disque|disco|lp|диск)\W?0?\d", re.IGNORECASE)
# "03. 1999 - Album"
_INDEX = re.compile(r"^\d{1,3}[\s._-]+(?=\D)")
# A bracket with one of these lists what a torrent has.
_LISTING = frozenset({"and", "plus", "with", "incl", "including", "stereo", "bonus"})


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What the folders of one file say."""

    # The recordings that they name.
    marks: frozenset[str] = frozenset()
    # Whether they say that it lies beside the album.
    aside: bool = False
    # The folders without discs, formats and editions: copies have the same.
    key: tuple[str, ...] = ()
    # 2: a folder is called as the album; 1: but for an addition to its name; 0: neither.
    of_album: int = 0
    # Of "X/CD1 - Album": the folder of the discs, "X".
    set_of_discs: tuple[str, ...] | None = None


def read_folders(
    paths: Sequence[str], *, album: str | None, artists: Collection[str]
) -> list[Folder]:
    """What the folders of each path say, in the order of the paths, which are all of one torrent.

    The torrent's own name is only read where the album's is known: "Live" may be the album.
    """
    parents = [tuple(path[-4 * LONGEST :].split("/")[:-1]) for path in paths]
    shared = _shared(parents) if parents else 0
    reader = _Reader(album, artists)
    once = {parent: reader.read(parent, shared) for parent in {*parents}}
    return [once[parent] for parent in parents]


def _shared(parents: Sequence[tuple[str, ...]]) -> int:
    """How many folders all of them have in common."""
    first, last = min(parents), max(parents)
    same = (one == other for one, other in zip(first, last, strict=False))
    return next(
        (place for place, alike in enumerate(same) if not alike), min(len(first), len(last))
    )


class _Reader:
    def __init__(self, album: str | None, artists: Collection[str]) -> None:
        self._albums = _ways_of_writing(album) if album else []
        self._artists = frozenset(word for artist in artists for word in fold(artist).split())

    def read(self, parent: tuple[str, ...], shared: int) -> Folder:
        marks: frozenset[str] = frozenset()
        aside, of_album = False, 0
        for place, name in enumerate(parent):
            words = fold(name)
            pure = _is_qualifier(words)
            called = self._is_album(name)
            if called or not (pure or _is_disc(words)):
                # The last folder with a name counts; where all files are, it tells none apart.
                of_album = called if place >= shared else 0
            if not called and (self._albums or place >= shared or (pure and place)):
                marks |= (marks_in(words) if pure else _added_marks(name)) - _NOT_OF_FOLDERS
                aside = aside or (pure and not _ASIDE.isdisjoint(words.split()))
        key = (" ".join(filter(_tells, _DISC.sub(" ", fold(name)).split())) for name in parent)
        return Folder(
            marks=marks,
            aside=aside,
            key=tuple(filter(None, key)),
            of_album=of_album,
            set_of_discs=next(
                (parent[:place] for place, name in enumerate(parent) if _NUMBERED_DISC.match(name)),
                None,
            ),
        )

    def _is_album(self, name: str) -> int:
        """How a folder is called as the album: see `Folder.of_album`.

        Around its name there may be artist, year, format and edition, but no other word.
        """
        whole = _INDEX.sub("", name.strip())
        texts = [whole, BRACKETED.sub(_if_it_tells, whole)]
        folded = [_DISC.sub(" ", numbered(fold(text))).split() for text in texts if text.strip()]
        for degree, album in self._albums:
            if any(self._is_around(words, album) for words in folded):
                return degree
        return 0

    def _is_around(self, words: Sequence[str], album: Sequence[str]) -> bool:
        return any(
            words[at : at + len(album)] == album
            and all(map(self._is_beside, [*words[:at], *words[at + len(album) :]]))
            for at in range(len(words) - len(album) + 1)
        )

    def _is_beside(self, word: str) -> bool:
        return word in self._artists or says_nothing(word)


def _ways_of_writing(album: str) -> list[tuple[int, list[str]]]:
    """The words of the album's name, whole and without an addition that tells nothing."""
    title = title_of(album)
    added = title.core.removeprefix(title.base)
    plain = not title.marks and not any(char.isdigit() for char in added)
    return [(2, title.core.split())] + ([(1, title.base.split())] if plain and added else [])


def _if_it_tells(found: re.Match[str]) -> str:
    """A bracket with words that tell albums apart, or nothing: a label, a year, a format."""
    words = numbered(fold(found[1]))
    part = any(word in PART_WORDS.values() for word in words.split())
    return f" {found[1]} " if marks_in(words) or part else " "


def _added_marks(name: str) -> frozenset[str]:
    """The marks in brackets and after dashes, but for a list of contents: "(Mono & Stereo)"."""
    kept = BRACKETED.sub(
        lambda found: " " if _LISTING & {*fold(found[1]).split()} else found[0], name
    )
    return title_of(kept).marks if kept.strip() else frozenset()


def _is_qualifier(words: str) -> bool:
    """Whether a folder's folded name says only what kind of recordings or files are in it."""
    left = [word for word in unmarked(_DISC.sub(" ", words)) if _tells(word)]
    return all(word in _ASIDE for word in left)


def _is_disc(words: str) -> bool:
    return not _DISC.sub(" ", words).strip()


def _tells(word: str) -> bool:
    """Whether a word of a folder's name is of its recordings, not of files and editions."""
    return not (says_nothing(word) or word in _FILLER)
