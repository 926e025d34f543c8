"""The torrents that the indexers list, by hash and by link."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path

from services.local.torrentino.config import StandinConfig
from services.local.torrentino.content import INDEXER, Song, TorrentSpec
from services.local.torrentino.decoys import decoys_of
from services.local.torrentino.faults import Faults
from services.local.torrentino.links import number_of
from services.local.torrentino.offers import Offer, offer_of_spec, offers_of_song
from services.local.torrentino.scoring import is_audio
from services.local.torrentino.source import Source, Stock

_LOG = logging.getLogger(__name__)
_SOUNDS = 50


class Shelf:
    """All torrents; one that a search listed stays as it was last listed."""

    def __init__(self, source: Source, faults: Faults, config: StandinConfig) -> None:
        self._source, self._faults, self._config = source, faults, config
        self._by_number: dict[int, Offer] = {}

    def matching(self, query: str) -> list[Offer]:
        """The torrents whose title has every word of the query (of two letters or more).

        The decoys of each are added; one with the fate `not_found` is left out with its decoys.
        """
        wanted = _words(query)
        if not wanted:
            return []
        right = [
            each for each in self._right(wanted) if self._faults.fate(each.titles) != "not_found"
        ]
        found = [*right, *self._beside(right)]
        self._by_number |= {number_of(each.info_hash): each for each in found}
        return found

    def of_hash(self, info_hash: str) -> Offer | None:
        """The torrent with that hash, listed or not."""
        found = self.of_number(number_of(info_hash))
        return found if found is not None and found.info_hash == info_hash else None

    def of_number(self, number: int) -> Offer | None:
        """The torrent with that indexer number, listed or not."""
        if number in self._by_number:
            return self._by_number[number]
        return next((each for each in self._every() if number_of(each.info_hash) == number), None)

    def decoys(self, specs: Sequence[TorrentSpec]) -> list[TorrentSpec]:
        """The decoys of these torrents."""
        audio = self._audio() if specs else []
        dead = self._config.dead_decoys
        return [decoy for spec in specs for decoy in decoys_of(spec, audio, dead=dead)]

    def indexers(self) -> list[str]:
        """The indexers that list something."""
        _, specs = self._stock()
        return sorted({each for spec in specs for each in spec.indexers} | {INDEXER})

    def _every(self) -> Iterator[Offer]:
        right = list(self._right(frozenset()))
        yield from right
        yield from self._beside(right)

    def _right(self, wanted: frozenset[str]) -> Iterator[Offer]:
        songs, specs = self._stock()
        for song in songs:
            if wanted <= _words(f"{song.artist} {song.title} FLAC WEB"):
                yield from self._of_song(song, wanted)
        for spec in specs:
            if wanted <= _words(spec.title):
                yield from self.of_spec(spec)

    def _of_song(self, song: Song, wanted: frozenset[str]) -> list[Offer]:
        titles = (song.title.casefold(),)
        try:
            made = offers_of_song(
                song,
                song.path,
                titles=titles,
                folder=self._faults.fate(titles) == "multi_file",
                spoiler=self._faults.spoiler(titles),
            )
        except OSError:
            return []  # its file is missing, so it has no seeder
        return [offer for offer in made if wanted <= _words(offer.title)]

    def of_spec(self, spec: TorrentSpec) -> list[Offer]:
        """The offer of this torrent; none if a file of it is missing."""
        try:
            return [offer_of_spec(spec, titles=(*_titles(spec.title), spec.name.casefold()))]
        except OSError as exc:
            _LOG.warning("a torrent's file is missing, so the search omits it: %s", exc)
            return []

    def _beside(self, right: Sequence[Offer]) -> Iterator[Offer]:
        """The decoys of these offers."""
        if not self._config.decoys:
            return
        specs = [_spec_of(each) for each in right if not each.second]
        for decoy in self.decoys(specs):
            for each in self.of_spec(decoy):
                yield replace(each, titles=(each.title.casefold(),))

    def _audio(self) -> Sequence[Path]:
        """Some of the source's audio files, for decoys."""
        songs, specs = self._stock()
        files = (file.source for spec in specs for file in spec.files if is_audio(file.path))
        return list(islice(dict.fromkeys(chain(files, (song.path for song in songs))), _SOUNDS))

    def _stock(self) -> tuple[Sequence[Song], Sequence[TorrentSpec]]:
        return self._source.offered() if isinstance(self._source, Stock) else ((), ())


def _spec_of(right: Offer) -> TorrentSpec:
    return TorrentSpec(
        title=right.title,
        files=right.files,
        seeders=right.seeders * len(right.indexers),
        private=not right.magnetic,
        magnet_only=not right.linked,
        redirects=right.redirects,
    )


@lru_cache(maxsize=10_000)
def _words(text: str) -> frozenset[str]:
    return frozenset(word for word in re.findall(r"[^\W_]+", text.casefold()) if len(word) > 1)


@lru_cache(maxsize=10_000)
def _titles(title: str) -> tuple[str, ...]:
    """Every run of words of a title, the longest first."""
    text = title.casefold()
    words = [found.span() for found in re.finditer(r"[^\W_]+", text)]
    runs = [text[first[0] : last[1]] for i, first in enumerate(words) for last in words[i:]]
    return tuple(dict.fromkeys(sorted([text, *runs], key=len, reverse=True)))
