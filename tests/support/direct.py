"""A world in which we search, choose, add and follow ourselves, with each torrent client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.local.torrentino import StandinConfig, TorrentSpec
from services.local.torrentino.config import Client
from shared.settings import Service
from tests.support.releases import TOLERANCE_S, Release, sha256
from tests.support.world import Row, World, eventually, make_world

SERVICES: tuple[Service, ...] = ("ingest", "ticketer", "poller", "fetcher_writer")


@asynccontextmanager
async def direct_world(
    folder: Path, database_url: str, client: Client, **config: Any
) -> AsyncIterator[World]:
    """As unkind as the stand-in is; `config` as in `StandinConfig`."""
    settings: dict[str, Any] = {"download_s": 0.1, "checking_s": 0.2, **config}
    async with make_world(folder, database_url, StandinConfig(client=client, **settings)) as world:
        world.env |= {
            "ACQUISITION": "direct",
            "TORRENTINO_DOWNLOADS_ROOT": str(world.downloads),
            "SEARCH_GAP_S": "0",
            "DURATION_TOLERANCE_S": str(TOLERANCE_S),
            # Among the decoys is a dead release. Without them nothing is to count as stalled on a
            # busy machine.
            "STALL_TIMEOUT_S": "2" if config.get("decoys", True) else "60",
        }
        yield world


def files_of(album: Release, places: Sequence[int] | None = None) -> dict[str, Path]:
    """The files of a torrent of it, all or those at these places, without a folder."""
    paths = list(album.tracks.values())
    wanted = range(1, len(paths) + 1) if places is None else places
    return {f"{n:02d} {album.name(n)}.flac": paths[n - 1] for n in wanted}


def list_release(
    world: World,
    album: Release,
    *,
    title: str | None = None,
    files: Mapping[str, Path] | None = None,
    **spec: Any,
) -> TorrentSpec:
    """Have the indexer list a torrent of it; its folder is called otherwise than its title."""
    made = TorrentSpec.of(title or album.title, files or files_of(album), **spec)
    world.torrents.append(made)
    return made


def assert_originals(world: World, album: Release, tracks: Sequence[str] | None = None) -> None:
    """Each of these tracks, of all by default, has its own audio, byte for byte."""
    files = world.files()
    wanted = album.ids if tracks is None else tracks
    assert {id_: sha256(files[id_]) for id_ in wanted if id_ in files} == {
        id_: sha256(album.tracks[id_]) for id_ in wanted
    }


async def downloads(world: World) -> list[Row]:
    """Our rows of downloads, oldest first."""
    return await world.rows("SELECT * FROM tickets WHERE way = 'direct' ORDER BY intended_at, id")


def at_client(world: World) -> dict[str, str]:
    """What the torrent client has: names by hash."""
    return {
        str(torrent["hash"]): str(torrent["name"])
        for torrent in (each.json() for each in world.standin.core.torrents.every())
    }


async def until_at_client(world: World, hashes: set[str]) -> None:
    """Wait until the torrent client has just these torrents."""

    async def there() -> set[str]:
        return set(at_client(world))

    await eventually(there, lambda found: found == hashes)
