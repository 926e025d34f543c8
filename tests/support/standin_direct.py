"""What the tests share that search and add by hand, without tickets, in both dialects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from services.local.torrentino import Faults, Song, SongList, Standin, TorrentSpec
from services.local.torrentino.config import Client
from services.local.torrentino.links import TRACKER
from tests.support.standin_helpers import JSON, client, eventually, quick

both_clients = pytest.mark.parametrize("kind", ["librqbit", "qbittorrent"])
TITLE = "Grey Harbour - Paper Lighthouse (2004) [FLAC]"
FOLDER = "2004 - Paper Lighthouse"
TRACKS = ("01 - Low Tide.flac", "02 - Fog Signal.flac", "03 - Salt.flac")
WHOLE = frozenset({"seeding", "stalled", "paused", "queued"})


@dataclass(frozen=True, kw_only=True)
class World:
    """A running stand-in, its API, and where its torrent client saves."""

    standin: Standin
    api: httpx.AsyncClient
    downloads: Path

    async def search(self, query: str, **more: object) -> list[JSON]:
        """The candidates for a query."""
        answer = await self.api.post("/search", json={"query": query, **more})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["candidates"])

    async def add_link(self, url: str, **more: object) -> httpx.Response:
        return await self.api.post("/torrents/add/url", json={"url": url, **more})

    async def add_magnet(self, uri: str, **more: object) -> httpx.Response:
        return await self.api.post("/torrents/add/magnet", json={"uri": uri, **more})

    async def add(self, spec: TorrentSpec, **more: object) -> JSON:
        """Add it by the link that a search gives; the torrent as it is then."""
        found = next(c for c in await self.search(spec.title) if c["title"] == spec.title)
        answer = await self.add_link(found["sources"][0]["torrent_url"], **more)
        assert answer.status_code == 200, answer.text
        return await self.torrent(spec.info_hash)

    async def torrents(self) -> dict[str, JSON]:
        """All torrents by their hashes."""
        shown = (await self.api.get("/torrents")).json()
        assert shown["count"] == len(shown["torrents"])
        return {each["hash"]: each for each in shown["torrents"]}

    async def torrent(self, info_hash: str) -> JSON:
        answer = await self.api.get(f"/torrents/{info_hash}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def until(self, info_hash: str, *states: str, progress: float | None = None) -> JSON:
        """The torrent, once it is in one of these states, and at that progress."""

        async def look() -> JSON | None:
            torrent = await self.torrent(info_hash)
            there = progress is None or torrent["progress"] == progress
            return torrent if torrent["state"] in states and there else None

        return await eventually(look)

    async def whole(self, info_hash: str) -> JSON:
        """The torrent, once all of it is there."""
        return await self.until(info_hash, *WHOLE, progress=1.0)

    def on_disk(self, spec: TorrentSpec) -> list[bytes]:
        """What lies where the files of a torrent belong."""
        return [(self.downloads / file.path).read_bytes() for file in spec.files]


@asynccontextmanager
async def world(
    folder: Path,
    kind: Client,
    specs: Sequence[TorrentSpec],
    *,
    songs: Sequence[Song] = (),
    **changes: Any,
) -> AsyncIterator[World]:
    """A quick stand-in with these torrents, of this client and without decoys."""
    downloads = folder / "downloads"
    settings = {"downloads": downloads, "client": kind, "decoys": False, "checking_s": 0.02}
    config = quick(**(settings | changes))
    source = SongList(songs, specs)
    async with Standin(config, source, Faults()) as standin, client(standin.url) as api:
        yield World(standin=standin, api=api, downloads=downloads)


def sounds(folder: Path, *names: str) -> dict[str, Path]:
    """A file of bytes of its own for each name, of no two sizes."""
    made = {}
    for place, name in enumerate(names, start=1):
        made[name] = folder / f"source {name}"
        made[name].write_bytes(name.encode() * 100 * (place + 1))
    return made


def album(folder: Path, title: str = TITLE, **more: Any) -> TorrentSpec:
    """A torrent of three tracks in a folder that is not called like it."""
    return TorrentSpec.of(title, sounds(folder, *TRACKS), **more)


def bytes_of(spec: TorrentSpec) -> list[bytes]:
    """What is in its files when they are whole."""
    return [file.source.read_bytes() for file in spec.files]


def magnet(info_hash: str, *, name: str | None = "x", tracker: bool = True) -> str:
    """A link as an indexer writes it; without a tracker it is bare."""
    more = {"dn": name} if name is not None else {}
    return f"magnet:?xt=urn:btih:{info_hash}" + _query(more | ({"tr": TRACKER} if tracker else {}))


def _query(fields: Mapping[str, str]) -> str:
    return "".join(f"&{key}={quote(value, safe='')}" for key, value in fields.items())
