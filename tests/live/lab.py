"""All that one trial runs, in a folder of its own: swarm, client, Torrentino, NATS and product."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from services.local.postgres import Postgres
from services.local.servers import Nats, free_port
from tests.live.music import Music, Release
from tests.live.product import Product
from tests.live.programs import API_KEY, Program, client, qbittorrent, swarm, torrentino, until
from tests.live.sound import Sounds

Json: TypeAlias = dict[str, Any]

_SOON_S = 60.0
_WHOLE = ("seeding", "stalled", "paused", "queued")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all trials of a run share."""

    folder: Path
    sounds: Sounds
    libraries: Path
    torrentino: Path
    qbittorrent: str | None
    postgres: Postgres
    # The database that each trial's is a copy of.
    template: str
    way: str


@dataclass(kw_only=True)
class Lab:
    """One trial's surroundings, with everything running."""

    seed: int
    product: Product
    swarm: Program
    torrentino: Program
    # A program of its own, unless it is Torrentino's.
    torrent_client: Program | None
    downloads: Path
    indexer_url: str
    indexer_key: str
    torrentino_url: str
    hashes: list[str]
    # What others have in the torrent client, by info-hash, with the digest of their files.
    of_others: dict[str, str] = field(default_factory=dict)

    async def indexer_answers(self, code: int) -> None:
        """Let the indexer answer every search with this status."""
        await self._tell(f"/status/{code}")

    async def slow_down_searches(self, seconds: float) -> None:
        """Let every search take so long."""
        await self._tell(f"/delay/{round(seconds * 1000)}")

    async def _tell(self, path: str) -> None:
        async with client(self.indexer_url) as http:
            (await http.post(path)).raise_for_status()

    async def seen(self) -> Json:
        """What the swarm was asked for."""
        async with client(self.indexer_url) as http:
            told: Json = (await http.get("/stats")).json()
            return told

    async def until_it_searches(self) -> None:
        """Wait until the indexer is being asked."""

        async def it_does() -> bool:
            return bool((await self.seen())["searching"])

        await until(it_does, "nobody searched", within_s=_SOON_S)

    async def until_something_downloads(self) -> None:
        """Wait until a torrent that is not another's asked the tracker for peers."""

        async def it_does() -> bool:
            return bool(set((await self.seen())["announced"]) - set(self.of_others))

        await until(it_does, "nothing was downloaded", within_s=_SOON_S)

    async def torrents(self) -> list[Json]:
        """The torrents that the client has, by Torrentino."""
        async with client(self.torrentino_url, key=API_KEY) as http:
            answer = (await http.get("/torrents")).raise_for_status()
            found: list[Json] = answer.json()["torrents"]
            return found

    async def add_for_others(self, number: int) -> None:
        """Have somebody else download a release, and wait until it is whole."""
        wanted = self.hashes[number]
        link = f"{self.indexer_url}/dl/{number}.torrent"
        async with client(self.torrentino_url, key=API_KEY) as http:
            (await http.post("/torrents/add/url", json={"url": link})).raise_for_status()

        async def it_is_whole() -> bool:
            return any(_is_whole(torrent, wanted) for torrent in await self.torrents())

        await until(it_is_whole, "another's torrent was not downloaded", within_s=_SOON_S)
        [torrent] = [torrent for torrent in await self.torrents() if torrent["hash"] == wanted]
        path = self.downloads / torrent["name"]
        self.of_others[wanted] = await asyncio.to_thread(_digest, path)

    async def leave_files_of(self, number: int) -> None:
        """Have a release downloaded, and removed from the client without its files."""
        await self.add_for_others(number)
        removed = self.hashes[number]
        del self.of_others[removed]
        async with client(self.torrentino_url, key=API_KEY) as http:
            (await http.delete(f"/torrents/{removed}")).raise_for_status()

    async def harmed(self) -> list[str]:
        """What is no longer as others left it in the torrent client."""
        there = {str(torrent["hash"]): torrent for torrent in await self.torrents()}
        said = []
        for info_hash, digest in self.of_others.items():
            torrent = there.get(info_hash)
            if torrent is None:
                said.append(f"another's torrent {info_hash} was removed")
            elif await asyncio.to_thread(_digest, self.downloads / torrent["name"]) != digest:
                said.append(f"the files of another's torrent {info_hash} were changed")
        return said

    async def unknown_torrents(self) -> int:
        """How many torrents are neither another's nor in the product's database."""
        rows = await self.product.rows("SELECT info_hash FROM tickets")
        known = {str(row["info_hash"]) for row in rows} | set(self.of_others)
        return sum(str(torrent["hash"]) not in known for torrent in await self.torrents())


def _is_whole(torrent: Json, info_hash: str) -> bool:
    whole = torrent["progress"] >= 1 and torrent["state"] in _WHOLE
    return bool(torrent["hash"] == info_hash and whole)


def _digest(path: Path) -> str:
    """Of a file, or of all files of a folder with their names."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        digest.update(str(file.relative_to(path.parent)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


@asynccontextmanager
async def running(
    bench: Bench, music: Music, *, name: str, seed: int, client_name: str, env: Mapping[str, str]
) -> AsyncIterator[Lab]:
    """Everything for a trial of this music, started; all of it is ended afterwards."""
    folder = bench.folder / name
    downloads, incoming = folder / "downloads", folder / "incoming"
    for made in (downloads, incoming, folder / "product/media"):
        made.mkdir(parents=True)
    world = await asyncio.to_thread(music.write_releases, folder / "seed", bench.sounds)
    await bench.postgres.create_database(name, template=bench.template)
    indexer_port, torrentino_port, torrents_port = free_port(), free_port(), free_port()
    key = secrets.token_hex(12)
    torrent_client = None
    if client_name == "qbittorrent":
        assert bench.qbittorrent is not None
        torrent_client = qbittorrent(
            folder / "qbittorrent",
            program=bench.qbittorrent,
            downloads=downloads,
            port=torrents_port,
            torrent_port=free_port(),
        )
    nats = Nats(folder / "nats")
    api = f"http://127.0.0.1:{torrentino_port}/api/v1"
    async with AsyncExitStack() as ends:
        await nats.start()
        ends.push_async_callback(nats.stop)
        around = swarm(
            folder / "swarm",
            world=world,
            port=indexer_port,
            key=key,
            libraries=bench.libraries,
        )
        service = torrentino(
            folder / "torrentino",
            program=bench.torrentino,
            port=torrentino_port,
            indexer_port=indexer_port,
            indexer_key=key,
            downloads=downloads,
            qbittorrent_port=torrents_port if torrent_client else None,
        )
        product = Product(
            folder=folder / "product",
            database_url=bench.postgres.url(name),
            port=free_port(),
            env={
                "NATS_URL": nats.url,
                "TORRENTINO_URL": api,
                "TORRENTINO_API_KEY": API_KEY,
                "TORRENTINO_DEST_ROOT": str(incoming),
                "TORRENTINO_DOWNLOADS_ROOT": str(downloads),
                "ACQUISITION": bench.way,
                **env,
            },
        )
        await asyncio.to_thread(music.write_catalog, product.catalog)
        for program in (around, torrent_client, service, product.program):
            if program is not None:
                ends.push_async_callback(program.stop)
                await program.start()
        indexer_url = f"http://127.0.0.1:{indexer_port}"
        async with client(indexer_url) as http:
            hashes = (await http.get("/hashes")).json()
        yield Lab(
            seed=seed,
            product=product,
            swarm=around,
            torrentino=service,
            torrent_client=torrent_client,
            downloads=downloads,
            indexer_url=indexer_url,
            indexer_key=key,
            torrentino_url=api,
            hashes=hashes,
        )


NEIGHBOUR = Release(
    title="not listed", folder="a neighbour's", files={"notes.txt": "mine\n" * 5000}, listed=False
)
