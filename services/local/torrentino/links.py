"""The links of a search: magnets, and .torrent files behind an indexer's key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, urlsplit

from services.local.torrentino.offers import Offer

SECRET_KEY = "SECRETKEY0123456789abcdef"  # noqa: S105 (made up; clients must not log or show it)
TRACKER = "http://tracker.invalid:6969/announce"
_LINK = re.compile(r"/dl/(\d+)\.torrent")
_BTIH = re.compile(r"urn:btih:([0-9a-fA-F]{40})")


@dataclass(frozen=True, kw_only=True)
class Magnet:
    """A parsed magnet link; `info_hash` is empty if it is not one."""

    info_hash: str
    name: str | None
    trackers: tuple[str, ...]


def number_of(info_hash: str) -> int:
    """The number that an indexer gives to a torrent."""
    return int(info_hash[:12], 16)


def torrent_link(base: str, offer: Offer) -> str:
    """The address of its .torrent; `base` is the stand-in's, without a path."""
    return f"{base}/dl/{number_of(offer.info_hash)}.torrent?apikey={SECRET_KEY}"


def magnet_link(offer: Offer) -> str:
    """Its magnet, with a tracker and the title as the indexer shows it."""
    title, tracker = quote(offer.title, safe=""), quote(TRACKER, safe="")
    return f"magnet:?xt=urn:btih:{offer.info_hash}&dn={title}&tr={tracker}"


def read_magnet(uri: str) -> Magnet:
    """Parse a magnet link."""
    parts = urlsplit(uri)
    query = parse_qs(parts.query) if parts.scheme == "magnet" else {}
    found = _BTIH.fullmatch(query.get("xt", [""])[0])
    return Magnet(
        info_hash=found[1].lower() if found else "",
        name=query.get("dn", [None])[0],
        trackers=tuple(query.get("tr", [])),
    )


def read_link(url: str) -> tuple[int | None, bool]:
    """The number in a link, None for a foreign link; and whether its key is right."""
    parts = urlsplit(url)
    found = _LINK.fullmatch(parts.path)
    return (int(found[1]) if found else None), parse_qs(parts.query).get("apikey") == [SECRET_KEY]


def torrent_file(offer: Offer) -> bytes:
    """Bytes that look like a .torrent; the stand-in itself never reads them."""
    name = offer.name.encode()
    return b"d8:announce%d:%s4:infod6:lengthi%de4:name%d:%see" % (
        len(TRACKER),
        TRACKER.encode(),
        offer.size_bytes,
        len(name),
        name,
    )
