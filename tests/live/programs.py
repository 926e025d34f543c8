"""The programs of others that a trial runs: the swarm, Torrentino and qBittorrent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from services.local.servers import end_process

_REPOSITORY = Path(__file__).parents[2]
_START_S = 60.0
# What Docker gives a container.
_LOOK_S = 0.1
API_KEY = "key-of-torrentino"


class Failed(Exception):
    """Something that a trial needs does not work; the text says what."""


async def until(look: Callable[[], Awaitable[bool]], otherwise: str, *, within_s: float) -> None:
    """Wait until it holds.

    Raises:
        Failed: it does not; `otherwise` says what that is.
    """
    try:
        async with asyncio.timeout(within_s):
            while True:
                if await look():
                    return
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise Failed(f"{otherwise} within {within_s:.0f} s") from None


@dataclass(kw_only=True)
class Program:
    """A program that is started, killed and started again; its log is beside its state."""

    name: str
    folder: Path
    command: Sequence[str]
    # It is up when this address answers anything; empty: as soon as it runs.
    url: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What it said, over all its starts."""
        return self.folder / f"{self.name}.log"

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            Failed: it ends, or does not answer.
        """
        assert not self.runs, f"{self.name} runs"
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = await asyncio.to_thread(
                subprocess.Popen,
                self.command,
                cwd=_REPOSITORY,
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            await until(self._answers, "it did not answer", within_s=_START_S)
        except Failed as error:
            await self.kill()
            raise Failed(f"{self.name}: {error}; it said: {self._last_words()}") from None

    async def _answers(self) -> bool:
        if not self.runs:
            raise Failed("it ended")
        if not self.url:
            return True
        try:
            async with client() as http:
                await http.get(self.url)
        except httpx.TransportError:
            return False
        return True

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"

    async def stop(self) -> None:
        """End it in order, or else by force."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it as a crash would."""
        await self._end(signal.SIGKILL)

    async def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        await end_process(process, number)


def client(base_url: str = "", *, timeout_s: float = 90, key: str = "") -> httpx.AsyncClient:
    """A client for programs on this machine."""
    # Reading the machine's certificates takes half a second, for plain HTTP.
    return httpx.AsyncClient(
        base_url=base_url,
        timeout=timeout_s,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        verify=False,
        trust_env=False,
    )


def swarm(folder: Path, *, world: Path, port: int, key: str, libraries: Path) -> Program:
    """The swarm of swarm.py, with libtorrent from `libraries`."""
    arguments = ("--world", str(world), "--port", str(port), "--key", key)
    return Program(
        name="swarm",
        folder=folder,
        command=[sys.executable, "-m", "tests.live.swarm", *arguments],
        url=f"http://127.0.0.1:{port}/stats",
        env={"PYTHONPATH": os.pathsep.join([str(libraries), str(_REPOSITORY)])},
    )


_QBITTORRENT = """[LegalNotice]
Accepted=true
[BitTorrent]
Session\\DefaultSavePath={downloads}
Session\\Port={torrent_port}
Session\\Interface=lo
Session\\InterfaceName=lo
Session\\DHTEnabled=false
Session\\LSDEnabled=false
Session\\PeXEnabled=false
[Network]
PortForwardingEnabled=false
[Preferences]
WebUI\\Address=127.0.0.1
WebUI\\Port={port}
WebUI\\LocalHostAuth=false
WebUI\\UseUPnP=false
"""


def qbittorrent(
    folder: Path, *, program: str, downloads: Path, port: int, torrent_port: int
) -> Program:
    """qBittorrent with a profile of its own, on loopback alone."""
    config = folder / "qBittorrent/config/qBittorrent.conf"
    config.parent.mkdir(parents=True)
    config.write_text(
        _QBITTORRENT.format(downloads=downloads, torrent_port=torrent_port, port=port),
        encoding="utf-8",
    )
    return Program(
        name="qbittorrent",
        folder=folder,
        command=[program, f"--profile={folder}"],
        url=f"http://127.0.0.1:{port}/",
        env={"HOME": str(folder)},
    )


_TORRENTINO = """[auth]
method = "api_key"
api_key = "{api_key}"
[server]
host = "127.0.0.1"
port = {port}
[database]
path = "{folder}/torrentino.db"
[searcher]
backend = "jackett"
[searcher.jackett]
url = "http://127.0.0.1:{indexer_port}"
api_key = "{indexer_key}"
timeout_secs = 20
[textbrain]
mode = "dumb_only"
[orchestrator]
enabled = true
acquisition_poll_interval_ms = 500
download_poll_interval_ms = 500
"""
_WITH_LIBRQBIT = """[torrent_client]
backend = "librqbit"
[torrent_client.librqbit]
download_path = "{downloads}"
enable_dht = false
persistence_path = "{folder}/session"
"""
_WITH_QBITTORRENT = """[torrent_client]
backend = "qbittorrent"
[torrent_client.qbittorrent]
url = "http://127.0.0.1:{port}"
username = "admin"
password = "adminadmin"
timeout_secs = 10
"""


def torrentino(
    folder: Path,
    *,
    program: Path,
    port: int,
    indexer_port: int,
    indexer_key: str,
    downloads: Path,
    qbittorrent_port: int | None,
) -> Program:
    """Torrentino with its own client, or with qBittorrent at this port."""
    folder.mkdir(parents=True)
    config = folder / "config.toml"
    torrents = (
        _WITH_LIBRQBIT.format(downloads=downloads, folder=folder)
        if qbittorrent_port is None
        else _WITH_QBITTORRENT.format(port=qbittorrent_port)
    )
    common = _TORRENTINO.format(
        api_key=API_KEY,
        port=port,
        folder=folder,
        indexer_port=indexer_port,
        indexer_key=indexer_key,
    )
    config.write_text(common + torrents, encoding="utf-8")
    return Program(
        name="torrentino",
        folder=folder,
        command=[str(program)],
        url=f"http://127.0.0.1:{port}/api/v1/health",
        env={"QUENTIN_CONFIG": str(config), "TMPDIR": str(folder), "RUST_LOG": "info"},
    )
