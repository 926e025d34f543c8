"""An album and its torrents, for the tests of the stand-in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from services.local.torrentino import Faults, SongList, Standin, TorrentFile, TorrentSpec
from shared.media.probe import ProbeResult, probe
from shared.media.tools import find_tools
from tests.support.audio import make_audio
from tests.support.standin_helpers import JSON, client, eventually, quick, songs

TITLES = ("Low Tide", "Paper Sails", "Fog Signal")
TITLE = "The Band - Harbour [FLAC]"
ROOT = "The Band - Harbour (2020) [FLAC]"
FFMPEG_FAILED = "Conversion failed: Conversion failed: FFmpeg exited with code: Some("


@dataclass(frozen=True, kw_only=True)
class Harbour:
    """A running stand-in, and where its torrent client saves."""

    standin: Standin
    api: httpx.AsyncClient
    downloads: Path
    specs: tuple[TorrentSpec, ...]


def spec_of(files: Mapping[str, Path], title: str = TITLE, **more: Any) -> TorrentSpec:
    """A torrent of these files."""
    listing = tuple(TorrentFile(path=path, source=source) for path, source in files.items())
    return TorrentSpec(title=title, files=listing, **more)


def album_files(folder: Path) -> dict[str, Path]:
    """`Root/NN - Title.flac` for the three titles, with bytes that are no audio."""
    made = {}
    for number, title in enumerate(TITLES, start=1):
        source = folder / f"source-{number}"
        source.write_bytes(title.encode() * 50)
        made[f"{ROOT}/{number:02d} - {title}.flac"] = source
    return made


def audible_files(folder: Path) -> dict[str, Path]:
    """The same paths, with a second of sound each."""
    return {
        f"{ROOT}/{number:02d} - {title}.flac": make_audio(
            folder / f"tone-{number}.flac", seconds=1, frequency=300 + 100 * number
        )
        for number, title in enumerate(TITLES, start=1)
    }


def album_body(dest: Path, *, titles: tuple[str, ...] = TITLES, **more: object) -> JSON:
    """A ticket for the album, as our ticketer asks for one."""
    tracks = [
        {"number": number, "title": title, "disc_number": 1}
        for number, title in enumerate(titles, start=1)
    ]
    expected = {"type": "album", "artist": "The Band", "title": "Harbour", "tracks": tracks}
    context = {"tags": ["music"], "description": "The Band Harbour", "expected": expected}
    return {"query_context": context, "dest_path": str(dest), **more}


@asynccontextmanager
async def harbour(
    folder: Path, *specs: TorrentSpec, titles: tuple[str, ...] = (), **changes: Any
) -> AsyncIterator[Harbour]:
    """A quick stand-in with these torrents, and songs by The Band with these titles."""
    downloads = folder / "downloads"
    config = quick(**{"downloads": downloads, **changes})
    source = Both(songs(folder, *titles), SongList((), specs))
    async with Standin(config, source, Faults()) as standin, client(standin.url) as api:
        yield Harbour(standin=standin, api=api, downloads=downloads, specs=specs)


class Both:
    """Songs of one list, torrents of another."""

    def __init__(self, songs: SongList, torrents: SongList) -> None:
        self.find, self.search = songs.find, torrents.search


async def downloaded(api: httpx.AsyncClient, info_hash: str) -> JSON:
    """The torrent, when it is complete."""

    async def look() -> JSON | None:
        answer = await api.get(f"/torrents/{info_hash}")
        return answer.json() if answer.json().get("progress") == 1.0 else None

    return await eventually(look)


async def process(api: httpx.AsyncClient, ticket_id: str, sent: JSON) -> httpx.Response:
    """Ask for a conversion."""
    return await api.post(f"/pipeline/process/{ticket_id}", json=sent)


def order_of(spec: TorrentSpec, save_path: Path, dest: Path, **more: object) -> JSON:
    """The body that asks for every file of the torrent, under our names."""
    files = [
        {
            "path": f"{save_path}/{file.path}",
            "item_id": f"track-{place}",
            "dest_filename": f"{place:04d}.flac",
        }
        for place, file in enumerate(spec.files, start=1)
    ]
    return {"source_files": files, "dest_dir": str(dest), "output_format": "flac", **more}


async def heard(path: Path) -> ProbeResult:
    """What is really in it."""
    return await probe(path, find_tools(), {})
