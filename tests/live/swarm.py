"""A closed swarm: torrents of the files it is given, their tracker, a seeder, and an indexer.

A program of its own, `python -m tests.live.swarm --world FILE --port PORT --key KEY`, because it
needs libtorrent, which the product does not. The indexer answers as Jackett's API does. Nothing
leaves 127.0.0.1. FILE is JSON, a list of:

    {"title": "Ida Crane - Grey Coast (1971) [FLAC]",   what the indexer calls it
     "path": "/…/seed/3/Grey Coast",                    its file or folder
     "listed": true, "seeded": true, "private": false, "magnet_only": false,
     "seeders": 12,                                     what the indexer claims
     "rate_kib_s": 0}                                   how quickly it is given, 0: at once

Beside the tracker and the indexer: `GET /stats`, `GET /hashes`, `POST /status/CODE` (what the
indexer answers a search with), `POST /delay/MILLISECONDS` (how long it takes).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

# It has no types, and is not in the environment that the linters see.
libtorrent: Any = importlib.import_module("libtorrent")

_PIECE_BYTES = 32 * 1024
_SESSION: Mapping[str, object] = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    # A client that was killed would be remembered at its UDP port.
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "unchoke_slots_limit": 200,
    "allow_multiple_connections_per_ip": True,
    "active_limit": 1000,
    "active_seeds": 1000,
    "connections_limit": 1000,
    "alert_mask": 0,
}


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A release with its torrent."""

    number: int
    release: Mapping[str, Any]
    torrent: bytes
    info_hash: str
    size_bytes: int

    @property
    def words(self) -> frozenset[str]:
        """What a query finds it by."""
        return _words(self.release["title"])


@dataclass
class Seen:
    """What the others asked for."""

    searching: int = 0
    queries: list[str] = field(default_factory=list)
    failed: int = 0
    torrent_files: int = 0
    announced: dict[str, int] = field(default_factory=dict)


class Swarm:
    """Tracker, seeder and indexer at one port."""

    def __init__(self, releases: Sequence[Mapping[str, Any]], *, port: int, key: str) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._key = key
        self._seen = Seen()
        self._status = 200
        self._delay_s = 0.0
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self._seed_port: int = sock.getsockname()[1]
        listen = {"listen_interfaces": f"127.0.0.1:{self._seed_port}"}
        self._session = libtorrent.session({**_SESSION, **listen})
        self._offers = [self._offer(number, release) for number, release in enumerate(releases)]
        self._by_hash = {offer.info_hash: offer for offer in self._offers}

    def app(self) -> Starlette:
        """All routes."""
        indexers = "/api/v2.0/indexers"
        return Starlette(
            routes=[
                Route("/announce", self._announce),
                Route(f"{indexers}/all/results", self._results),
                Route(indexers, self._indexers),
                Route("/dl/{number:int}.torrent", self._torrent),
                Route("/status/{code:int}", self._set_status, methods=["POST"]),
                Route("/delay/{ms:int}", self._set_delay, methods=["POST"]),
                Route("/stats", self._stats),
                Route("/hashes", self._hashes),
            ]
        )

    def _offer(self, number: int, release: Mapping[str, Any]) -> Offer:
        top = Path(release["path"])
        storage = libtorrent.file_storage()
        libtorrent.add_files(storage, str(top))
        made = libtorrent.create_torrent(storage, _PIECE_BYTES, libtorrent.create_torrent.v1_only)
        made.add_tracker(f"{self._url}/announce")
        made.set_priv(release.get("private", False))
        libtorrent.set_piece_hashes(made, str(top.parent))
        torrent = libtorrent.bencode(made.generate())
        info = libtorrent.torrent_info(libtorrent.bdecode(torrent))
        if release.get("seeded", True):
            self._seed(info, top.parent, int(release.get("rate_kib_s", 0)) * 1024)
        return Offer(
            number=number,
            release=release,
            torrent=torrent,
            info_hash=str(info.info_hash()),
            size_bytes=info.total_size(),
        )

    def _seed(self, info: Any, folder: Path, rate_bytes_s: int) -> None:
        parameters = libtorrent.add_torrent_params()
        parameters.ti = info
        parameters.save_path = str(folder)
        parameters.flags |= libtorrent.torrent_flags.seed_mode
        if rate_bytes_s:
            parameters.upload_limit = rate_bytes_s
        self._session.add_torrent(parameters)

    async def _announce(self, request: Request) -> Response:
        # Twenty bytes, which no text decoding may touch.
        raw = re.search(r"info_hash=([^&]*)", request.scope["query_string"].decode("ascii"))
        info_hash = unquote_to_bytes(raw.group(1)).hex() if raw else ""
        offer = self._by_hash.get(info_hash)
        if offer is None:
            return _bencoded({b"failure reason": b"unregistered torrent"})
        if request.query_params.get("port") == str(self._seed_port):
            return _bencoded({b"interval": 1800, b"peers": b""})
        self._seen.announced[info_hash] = self._seen.announced.get(info_hash, 0) + 1
        seeded = offer.release.get("seeded", True)
        peer = socket.inet_aton("127.0.0.1") + self._seed_port.to_bytes(2, "big")
        return _bencoded(
            {
                b"interval": 30,
                b"min interval": 5,
                b"complete": int(seeded),
                b"incomplete": 0,
                b"peers": peer if seeded else b"",
            }
        )

    async def _results(self, request: Request) -> Response:
        query = request.query_params.get("Query", "")
        self._seen.searching += 1
        try:
            await asyncio.sleep(self._delay_s)
        finally:
            self._seen.searching -= 1
        if self._status != 200:
            self._seen.failed += 1
            return Response("the indexer is away", status_code=self._status)
        self._seen.queries.append(query)
        # As trackers search: every word of the query has to be in the title.
        words = _words(query)
        found = [
            self._result(offer)
            for offer in self._offers
            if words and words <= offer.words and offer.release.get("listed", True)
        ]
        told = {"ID": "lab", "Name": "lab", "Status": 2, "Results": len(found), "Error": None}
        return JSONResponse({"Results": found, "Indexers": [told]})

    def _result(self, offer: Offer) -> dict[str, object]:
        release = offer.release
        title, seeders = release["title"], release.get("seeders", 12)
        private = release.get("private", False)
        link = f"{self._url}/dl/{offer.number}.torrent?jackett_apikey={self._key}"
        tracker = quote(f"{self._url}/announce", safe="")
        magnet = f"magnet:?xt=urn:btih:{offer.info_hash}&dn={quote(title, safe='')}&tr={tracker}"
        return {
            "Title": title,
            "Tracker": "lab",
            "TrackerId": "lab",
            "CategoryDesc": "Audio",
            "Category": [3000],
            "Size": offer.size_bytes,
            "Seeders": seeders,
            "Peers": seeders + 2,
            "Link": None if release.get("magnet_only", False) else link,
            "MagnetUri": None if private else magnet,
            "InfoHash": None if private else offer.info_hash,
            "PublishDate": "2024-06-15T10:30:00Z",
            "Details": f"{self._url}/details/{offer.number}",
        }

    async def _indexers(self, _request: Request) -> Response:
        return JSONResponse([{"id": "lab", "name": "lab", "configured": True}])

    async def _torrent(self, request: Request) -> Response:
        self._seen.torrent_files += 1
        offer = self._offers[request.path_params["number"]]
        return Response(offer.torrent, media_type="application/x-bittorrent")

    async def _set_status(self, request: Request) -> Response:
        self._status = request.path_params["code"]
        return JSONResponse({})

    async def _set_delay(self, request: Request) -> Response:
        self._delay_s = request.path_params["ms"] / 1000
        return JSONResponse({})

    async def _stats(self, _request: Request) -> Response:
        seen = self._seen
        return JSONResponse(
            {
                "searching": seen.searching,
                "queries": seen.queries,
                "failed": seen.failed,
                "torrent_files": seen.torrent_files,
                "announced": seen.announced,
            }
        )

    async def _hashes(self, _request: Request) -> Response:
        return JSONResponse([offer.info_hash for offer in self._offers])


def _words(text: str) -> frozenset[str]:
    return frozenset(word for word in re.split(r"[\W_]+", text.lower()) if len(word) > 1)


def _bencoded(answer: Mapping[bytes, object]) -> Response:
    return Response(libtorrent.bencode(answer), media_type="text/plain")


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.swarm", description=__doc__)
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True, help="the indexer's key, which its links carry")
    given = parser.parse_args()
    releases = json.loads(given.world.read_text(encoding="utf-8"))
    swarm = Swarm(releases, port=given.port, key=given.key)
    uvicorn.run(swarm.app(), host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
