"""A mode of acquisition at a running stand-in, and what its tests do behind its back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from services.local.torrentino import Song, Standin, TorrentSpec
from services.local.torrentino.config import Client
from shared.acquisition.direct import Direct, TorrentOrder
from shared.acquisition.protocol import Begun, Mode, Seen, Started
from shared.acquisition.removal import Case, Removal, Standing
from shared.acquisition.tickets import Tickets
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import RemoteTicket, TicketRequest
from tests.support.standin_direct import TRACKS, sounds, world
from tests.support.standin_helpers import AUDIO

ARTIST, TITLE = "The Band", "Low Tide"
RELEASE = "The Band - Low Tide (2004) [FLAC]"
OTHER = "Another Band - Other Music (2001) [FLAC]"
LATER = {"type": "failed", "error": "Download stalled: tried 5 candidates", "retryable": False}


class AllFree:
    """`Rules` of a user who has nothing else at Torrentino: what lives there decides alone."""

    def allow(self, case: Case) -> bool:
        return True

    @asynccontextmanager
    async def undisturbed(
        self,
        case: Case,
        *,
        added_at: datetime | None,
    ) -> AsyncIterator[Standing]:
        yield Standing.FREE


class Lab(ABC):
    """One download that a mode can bring, and the remote that brings it."""

    # The request that starts a download.
    starts: str

    def __init__(self, standin: Standin, client: TorrentinoClient, downloads: Path) -> None:
        self.standin = standin
        self.client = client
        self.downloads = downloads

    mode: Mode[Any, Any]
    order: Any
    # What the intent has of it, before it is started.
    intent: Begun
    # The bytes of its files.
    content: list[bytes]

    async def start(self) -> Begun:
        """The download, started."""
        return self.known(await self.mode.start(self.order))

    def known(self, started: Started) -> Begun:
        """What is recorded of it then."""
        return replace(self.intent, remote_id=started.remote_id)

    async def look(self, begun: Begun) -> Seen[Any]:
        """What the remote shows of it."""
        return (await self.mode.follow([begun]))[begun.id]

    async def downloading(self, begun: Begun) -> Begun | None:
        """It, with its torrent, once the remote downloads that."""
        remote = (await self.look(begun)).remote
        if remote is None or remote.info_hash not in await self.torrents():
            return None
        selected = isinstance(remote, RemoteTicket) and remote.state != "downloading"
        return None if selected else replace(begun, info_hash=remote.info_hash)

    async def torrents(self) -> set[str]:
        """The hashes of what the torrent client has."""
        return {each.info_hash for each in await self.client.torrents() if each.info_hash}

    async def followed_by_another(self, info_hash: str) -> None:
        """A ticket of another user downloads this torrent as well."""
        request = TicketRequest(
            description="x", artist=None, title="x", dest_path="/elsewhere/y", priority=1
        )
        remote = await self.client.create(request)
        state = {"type": "downloading", "info_hash": info_hash, "progress_pct": 1.0}
        self.standin.set_state(remote.id, state)

    @abstractmethod
    async def at_remote(self) -> set[str]:
        """The remote ids of all that lives there."""

    @abstractmethod
    async def stranger(self) -> str:
        """Another user starts a download; its remote id."""

    @abstractmethod
    def refuse(self) -> None:
        """Let the remote refuse the order from now on, or make it one that is refused."""

    @abstractmethod
    def fail(self, begun: Begun) -> None:
        """Let it fail at the remote."""

    @abstractmethod
    async def lose(self, begun: Begun) -> None:
        """Let the remote forget it."""


class DirectLab(Lab):
    """A release of three files."""

    starts = "POST /torrents/add/url"

    async def prepare(self, spec: TorrentSpec, *, told: bool) -> None:
        """`told`: the indexer tells the hash."""
        self._spec = spec
        removal = Removal(self.client, AllFree())
        mode = Direct(self.client, downloads_root=str(self.downloads), removal=removal)
        self.mode, self.content = mode, [file.source.read_bytes() for file in spec.files]
        size_bytes = sum(map(len, self.content))
        before = await mode.present()
        self.order = TorrentOrder(
            link=await self._link(spec.title),
            folder=mode.folder_of("ours", installation="us"),
            info_hash=spec.info_hash if told else "",
            size_bytes=size_bytes,
            before=before,
        )
        self.intent = Begun(
            id="ours",
            remote_id=spec.info_hash if told else None,
            folder=mode.folder_of("ours", installation="us"),
            size_bytes=size_bytes,
            before=before,
        )

    async def _link(self, title: str) -> str:
        found = await self.client.search(title)
        link = next(each.torrent_url for each in found.releases if each.title == title)
        assert link is not None
        return link

    async def at_remote(self) -> set[str]:
        return await self.torrents()

    async def stranger(self) -> str:
        before = await self.torrents()
        await self.client.add_torrent(await self._link(OTHER), folder="/elsewhere")
        [added] = await self.torrents() - before
        return added

    def refuse(self) -> None:
        self.standin.faults.dead_links = True

    def fail(self, begun: Begun) -> None:
        self.standin.break_torrent(str(begun.remote_id))

    async def lose(self, begun: Begun) -> None:
        self.standin.forget_torrent(str(begun.remote_id))


class TicketLab(Lab):
    """A song, as a torrent of one file."""

    starts = "POST /tickets"

    def prepare(self, incoming: Path, *, sees_downloads: bool) -> None:
        """`sees_downloads`: the folder of the torrent client is mounted here."""
        root = str(self.downloads) if sees_downloads else None
        removal = Removal(self.client, AllFree())
        self.mode = Tickets(
            self.client, dest_root=str(incoming), downloads_root=root, removal=removal
        )
        self.content = [AUDIO]
        folder = f"{incoming}/ours"
        self.order = TicketRequest(
            description=f"{ARTIST} {TITLE}",
            artist=ARTIST,
            title=TITLE,
            dest_path=folder,
            priority=200,
        )
        self.intent = Begun(id="ours", remote_id=None, folder=folder)

    async def at_remote(self) -> set[str]:
        ended = ("completed", "failed", "rejected", "cancelled")
        return {
            str(ticket["id"])
            for ticket in self.standin.tickets()
            if ticket["state"]["type"] not in ended  # type: ignore[index]
        }

    async def stranger(self) -> str:
        request = replace(self.order, title="Other Music", dest_path="/elsewhere/x")
        return (await self.client.create(request)).id

    def refuse(self) -> None:
        self.order = replace(self.order, artist="x" * 3_000_000)

    def fail(self, begun: Begun) -> None:
        self.standin.set_state(str(begun.remote_id), LATER)

    async def lose(self, begun: Begun) -> None:
        await self.client.delete_ticket(str(begun.remote_id))


@asynccontextmanager
async def lab(folder: Path, name: str) -> AsyncIterator[Lab]:
    """The lab of this name: a mode, a torrent client, and what else differs."""
    mode, kind, *variant = name.split()
    dialect: Client = "librqbit" if kind == "librqbit" else "qbittorrent"
    private = "private" in variant
    song = folder / "song.flac"
    song.write_bytes(AUDIO)
    spec = TorrentSpec.of(RELEASE, sounds(folder, *TRACKS), private=private)
    other = TorrentSpec.of(OTHER, {"a.flac": song})
    songs = [Song(artist=ARTIST, title=TITLE, path=song)]
    specs = [spec, other] if mode == "direct" else []
    async with world(folder, dialect, specs, songs=songs) as it:
        client = TorrentinoClient(base_url=it.standin.url, api_key=None, timeout_s=5)
        try:
            if mode == "direct":
                direct = DirectLab(it.standin, client, it.downloads)
                await direct.prepare(spec, told=not private)
                yield direct
            else:
                tickets = TicketLab(it.standin, client, it.downloads)
                tickets.prepare(folder / "incoming", sees_downloads="seen" in variant)
                yield tickets
        finally:
            await client.close()
