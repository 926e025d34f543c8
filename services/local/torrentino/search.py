"""The answers of `/search`: the indexers' results, and cached results of earlier searches.

The reference specifies the form (1.5); how results are merged, cached and ordered was observed
at the real server. Its cache keeps results that have a hash, and finds those whose title contains
the query literally.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from urllib.parse import quote

from services.local.torrentino.catalog import Catalog
from services.local.torrentino.faults import Faults
from services.local.torrentino.links import (
    SECRET_KEY,
    magnet_link,
    number_of,
    read_link,
    torrent_link,
)
from services.local.torrentino.offers import Offer
from services.local.torrentino.shelf import Shelf

_OLDEST = datetime(2006, 1, 1, tzinfo=UTC)
_SPAN_DAYS = 7000


class SearchFailed(Exception):
    """No indexer answered; the text is the server's."""


class LinkFailed(Exception):
    """A link gives this status instead of a .torrent; 200 for a web page."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(f"{status.value} {status.phrase}")
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A release, and the indexers that list it."""

    title: str
    info_hash: str  # empty if no indexer lists it
    size_bytes: int
    publish_date: str | None
    sources: tuple[Mapping[str, object], ...]
    files: object = None  # its listing, if it was fetched
    from_cache: bool = False

    @property
    def seeders(self) -> int:
        """The sum over the sources, which may count the same peers."""
        return self._sum("seeders")

    def json(self) -> dict[str, object]:
        """As the API shows it."""
        shown: dict[str, object] = {
            "title": self.title,
            "info_hash": self.info_hash,
            "size_bytes": self.size_bytes,
            "seeders": self.seeders,
            "leechers": self._sum("leechers"),
            "category": "Audio/Lossless",
            "sources": [dict(each) for each in self.sources],
            "from_cache": self.from_cache,
        }
        if self.publish_date is not None:
            shown["publish_date"] = self.publish_date
        if self.files is not None:
            shown["files"] = self.files
        return shown

    def _sum(self, name: str) -> int:
        return sum(int(str(each[name])) for each in self.sources)


@dataclass(kw_only=True)
class Search:
    """The searcher of one server; its results go into the catalog, without file lists."""

    shelf: Shelf
    faults: Faults
    catalog: Catalog
    _cache: dict[str, Candidate] = field(default_factory=dict)

    def ask(self, query: str, base: str) -> list[Candidate]:
        """Search the indexers; links are below `base`, and `cached` finds the results later.

        Raises:
            SearchFailed: the indexers are unavailable, or all of them failed.
        """
        if self.faults.searcher_away:
            url = f"{base}/api/v2.0/indexers/all/results?apikey={SECRET_KEY}&Query={quote(query)}"
            text = f"Search backend API error: error sending request for url ({url})"
            raise SearchFailed(text)
        silent = {each.casefold() for each in self.faults.indexer_errors}
        if silent and silent >= {each.casefold() for each in self.shelf.indexers()}:
            raise SearchFailed("All indexers failed")
        found: list[Candidate] = []
        for offer in self.shelf.matching(query):
            listed = _candidates(offer, base, silent)
            found += listed
            if listed:
                self.catalog.saw(offer)
        self._cache |= {each.info_hash: each for each in found if each.info_hash}
        return found

    def follow(self, url: str) -> Offer:
        """The torrent behind a link that an indexer gave.

        Raises:
            LinkFailed: there is none, or the indexers are unavailable (503).
        """
        if self.faults.searcher_away:
            raise LinkFailed(HTTPStatus.SERVICE_UNAVAILABLE)
        number, admitted = read_link(url)
        if not admitted:
            raise LinkFailed(HTTPStatus.FOUND)  # to the login page
        offer = None if number is None else self.shelf.of_number(number)
        fate = "" if offer is None else self.faults.fate(offer.titles)
        if offer is None or fate == "dead_link" or self.faults.dead_links:
            raise LinkFailed(HTTPStatus.NOT_FOUND)
        if fate == "no_torrent":
            raise LinkFailed(HTTPStatus.OK)
        return offer

    def cached(self, query: str) -> list[Candidate]:
        """Earlier results that are in the catalog and whose title contains the query literally."""
        return [
            replace(each, publish_date=None, files=entry.get("files"), from_cache=True)
            for each in self._cache.values()
            if query.casefold() in each.title.casefold()
            and (entry := self.catalog.get(each.info_hash)) is not None
        ]


def _candidates(offer: Offer, base: str, silent: set[str]) -> Sequence[Candidate]:
    """One candidate with all sources; without a hash, which would merge them, one per source."""
    sources = [
        _source(offer, indexer, base)
        for indexer in offer.indexers
        if indexer.casefold() not in silent
    ]
    groups = [sources] if offer.magnetic else [[each] for each in sources]
    return [
        Candidate(
            title=offer.title,
            info_hash=offer.info_hash if offer.magnetic else "",
            size_bytes=offer.size_bytes,
            publish_date=_published(offer),
            sources=tuple(group),
        )
        for group in groups
        if group
    ]


def _source(offer: Offer, indexer: str, base: str) -> Mapping[str, object]:
    links: dict[str, object] = {}
    if offer.magnetic:
        links["magnet_uri"] = magnet_link(offer)
    if offer.linked:
        links["torrent_url"] = torrent_link(base, offer)
    return {
        "indexer": indexer,
        **links,
        "seeders": offer.seeders,
        "leechers": offer.seeders // 5,
        "details_url": f"http://{indexer}.invalid/torrent/{number_of(offer.info_hash)}",
    }


def _published(offer: Offer) -> str:
    day = _OLDEST + timedelta(days=number_of(offer.info_hash) % _SPAN_DAYS)
    return day.strftime("%Y-%m-%dT%H:%M:%SZ")
