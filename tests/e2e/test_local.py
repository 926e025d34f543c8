"""`pezzottify-downloads local`: the whole system with one command, started, stopped and killed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from services.local.postgres import Postgres
from services.local.sample import ALBUM_ID, add_album, create_catalog, write_sample
from services.local.servers import free_port
from services.local.torrentino import SongList, Standin, StandinConfig
from tests.support.commands import command
from tests.support.world import eventually

_TRACKS = 12
_GRACE_S = 20
_NAMED = ("DATABASE_URL", "NATS_URL", "TORRENTINO_URL", "CATALOG_DB", "MEDIA_PATH")


class Run:
    """One run of the command, and all it says."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self.process = process
        self._output = output

    @property
    def text(self) -> str:
        return self._output.read_text(encoding="utf-8")

    async def says(self, words: str) -> None:
        """Wait until it has said these words."""

        async def said() -> bool:
            assert words in self.text or self.process.returncode is None, self.text
            return words in self.text

        await eventually(said, within_s=90)

    async def ends(self, within_s: float = 90) -> int:
        return await asyncio.wait_for(self.process.wait(), within_s)


@asynccontextmanager
async def _run(data: Path, *args: str, **env: str) -> AsyncIterator[Run]:
    output = Path(tempfile.mkstemp(prefix="pezzottify-local-", suffix=".log")[1])
    inherited = {name: value for name, value in os.environ.items() if name not in _NAMED}
    ports = {"PORT": str(free_port()), "OPS_PORT": str(free_port())}
    with output.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services", "local", "--data", str(data), *args),
            env=inherited | ports | env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Run(process, output)
    finally:
        output.unlink()
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A folder with a name that is hard on shells and parsers; below one that root alone enters."""
    made = tmp_path / "a 100% new (folder)"
    yield made
    for process in _left(made):
        process.kill()


@pytest.fixture(scope="session")
def made_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a first run makes in the longest part of its start: the cluster and the songs."""
    made = tmp_path_factory.mktemp("made-before")
    write_sample(made / "sample")
    asyncio.run(_make_cluster(made / "postgres"))
    return made


async def _make_cluster(folder: Path) -> None:
    server = Postgres(folder)
    await server.start()
    await server.stop()


@pytest.fixture
def used(data: Path, made_before: Path) -> Path:
    """The folder of an earlier run, for tests that are not about the first one."""
    subprocess.run(["cp", "-a", str(made_before), str(data)], check=True)
    return data


def _left(data: Path) -> list[psutil.Process]:
    """The processes that run on this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.cwd()]
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
        if any(str(data) in word for word in words):
            found.append(process)
    return found


def _files(data: Path) -> list[Path]:
    return [path for path in (data / "media" / "audio").rglob("*") if path.is_file()]


async def test_once_again_and_after_a_kill(data: Path) -> None:
    """Killed in the middle, then run again: exit 0 and 12 files; once more: they are there."""
    async with _run(data, "--once", LEASE_S="2") as killed:
        await killed.says("completed ")
        killed.process.kill()
        await killed.ends()
    assert len(_left(data)) >= 2, "its servers outlive it"
    # What the stand-in was converting is lost with it, as with the real one, and found stalled.
    async with _run(data, "--once", LEASE_S="2", STALL_TIMEOUT_S="4", RETRY_INITIAL_S="1") as again:
        assert await again.ends() == 0, again.text
        assert f"{_TRACKS} of {_TRACKS} files are in place and decode" in again.text
        assert f"playable {_TRACKS} of {_TRACKS}" in again.text
    assert len(_files(data)) == _TRACKS
    assert _left(data) == []
    async with _run(data, "--once") as third:
        assert await third.ends() == 0, third.text
        assert f"{_TRACKS} already available" in third.text
    assert _left(data) == []


async def test_serving_ends_with_ctrl_c(used: Path) -> None:
    """Ctrl-C, also in the middle of the album, ends with 0 within the grace and leaves nothing."""
    async with _run(used) as run:
        await run.says("downloading ")
        run.process.send_signal(signal.SIGINT)
        assert await run.ends(_GRACE_S) == 0, run.text
        assert "Traceback" not in run.text
        there = len(_files(used))
        assert run.text.splitlines()[-1] == f"stopped; {there} of {_TRACKS} in place"
    assert _left(used) == []


async def test_umask_opens_the_media_and_nothing_else(data: Path) -> None:
    """With UMASK=000 everybody may write to the songs, nobody to the state, the logs, the key."""
    async with _run(data, UMASK="000") as run:
        await run.says("completed ")
        songs = await eventually(lambda: asyncio.to_thread(_files, data))
        assert {path.stat().st_mode & 0o777 for path in songs} == {0o666}
        open_to_all = {path.name for path in data.iterdir() if path.stat().st_mode & 0o002}
        run.process.send_signal(signal.SIGINT)
        assert await run.ends(_GRACE_S) == 0, run.text
    assert open_to_all == {"media"}
    assert data.stat().st_mode & 0o022 == 0
    for secret in ("admin.key", "torrentino.key", "nats.url"):
        assert (data / secret).stat().st_mode & 0o777 == 0o600
    for closed in ("postgres", "nats"):
        assert (data / closed).stat().st_mode & 0o777 == 0o700


async def test_a_second_signal_ends_at_once_with_its_servers(used: Path) -> None:
    """Asked twice, it ends without waiting, and its servers are told to."""
    async with _run(used) as run:
        await run.says("downloading ")
        run.process.send_signal(signal.SIGINT)

        async def stopping() -> bool:
            return '"stopping"' in (used / "service.log").read_text(encoding="utf-8")

        await eventually(stopping)
        run.process.send_signal(signal.SIGINT)
        assert await run.ends(_GRACE_S) in (0, 128 + signal.SIGINT)

    async def left() -> list[psutil.Process]:
        return _left(used)

    await eventually(left, lambda processes: not processes)


async def test_a_taken_port_is_one_line(used: Path) -> None:
    """Somebody else serves PORT: one line that says so, exit 1, nothing left running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        async with _run(used, PORT=port) as run:
            assert await run.ends() == 1
            assert "Traceback" not in run.text
            assert run.text.splitlines()[-1].startswith(f"PORT: cannot listen on 127.0.0.1:{port}")
    assert _left(used) == []


async def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """What stands in the way of the state is told in one line."""
    (tmp_path / "file").write_text("")
    async with _run(tmp_path / "file" / "data") as run:
        assert await run.ends() == 1
        assert run.text.splitlines()[-1].startswith("cannot keep state in")
        assert "Traceback" not in run.text


async def test_with_a_real_torrentino_nothing_invented_is_asked_for(
    used: Path, tmp_path: Path
) -> None:
    """F9: also after a look at the sample: no ticket, its own state, how to ask for an album."""
    async with _run(used) as sample:
        await sample.says("downloading ")
        sample.process.send_signal(signal.SIGINT)
        assert await sample.ends(_GRACE_S) == 0, sample.text
    own = write_own(tmp_path)
    before = own.read_bytes(), own.stat().st_mtime_ns
    config = StandinConfig(downloads=tmp_path / "downloads")
    async with Standin(config, SongList([])) as torrentino:
        named = {
            "TORRENTINO_URL": torrentino.url,
            "TORRENTINO_DEST_ROOT": str(tmp_path / "incoming"),
            "CATALOG_DB": str(own),
            "MEDIA_PATH": str(tmp_path / "library"),
        }
        async with _run(used, **named) as run:
            await run.says("Ctrl-C ends")
            assert "pezzottify-downloads album own-album-1" in run.text
            assert "Somebody - Real Songs (2 tracks)" in run.text
            assert "Kites" not in run.text
            assert torrentino.requests["POST /tickets"] == 0
            # Its own: the ticket that is asked for arrives there, and no other.
            asked = await command("album", "own-album-1", cwd=used.parent, env=_at(used))
            assert asked.code == 0, asked
            await eventually(lambda: _posts(torrentino), lambda posts: posts > 0, within_s=20)
            bodies = [str(ticket) for ticket in torrentino.tickets()]
            assert bodies
            assert all("Real Songs" in body for body in bodies)
            run.process.send_signal(signal.SIGINT)
            assert await run.ends(_GRACE_S) == 0, run.text
            assert run.text.splitlines()[-1] == "stopped"
        async with _run(used, "--once", **named) as once:
            assert await once.ends() == 1
            assert "--once ends with the sample album" in once.text
    assert not list((tmp_path / "library/audio").rglob("*.*"))
    # The sample's catalog is written to without a setting, and no other.
    assert (own.read_bytes(), own.stat().st_mtime_ns) == before
    wal = own.with_name("catalog.db-wal")
    assert not wal.exists() or wal.stat().st_size == 0


def write_own(folder: Path) -> Path:
    """A catalog and folders such as a real installation has."""
    for name in ("downloads", "incoming", "library"):
        (folder / name).mkdir(exist_ok=True)
    catalog = folder / "catalog.db"
    create_catalog(catalog)
    tracks = [{"id": f"own-track-{n}", "name": f"Song {n}", "duration_ms": 180_000} for n in (1, 2)]
    add_album(catalog, album_id="own-album-1", name="Real Songs", artist="Somebody", tracks=tracks)
    return catalog


async def _posts(torrentino: Standin) -> int:
    return torrentino.requests["POST /tickets"]


def _at(data: Path) -> dict[str, str]:
    """How the command line gets to a run that is not in this folder."""
    return {
        "PEZZOTTIFY_DOWNLOADS_URL": (data / "api.url").read_text().strip(),
        "BOOTSTRAP_ADMIN_KEY": (data / "admin.key").read_text().strip(),
    }


async def test_a_torrentino_without_a_catalog_asks_for_nothing(data: Path, tmp_path: Path) -> None:
    """F9: the sample's catalog is not offered to a real Torrentino either, not even by hand."""
    (tmp_path / "incoming").mkdir()
    named = {
        "TORRENTINO_URL": f"http://127.0.0.1:{free_port()}/api/v1",
        "TORRENTINO_DEST_ROOT": str(tmp_path / "incoming"),
    }
    async with _run(data, **named) as run:
        await run.says("Ctrl-C ends")
        assert "CATALOG_DB is not set" in run.text
        refused = await command("album", ALBUM_ID, cwd=data.parent, env=_at(data))
        assert (refused.code, "There is no such thing" in refused.err) == (1, True)
        await eventually(lambda: asyncio.to_thread((data / "own/media/.incoming").exists))
        run.process.send_signal(signal.SIGINT)
        assert await run.ends(_GRACE_S) == 0, run.text
    # What is set step by step is taken, as long as nothing was placed elsewhere.
    named |= {"CATALOG_DB": str(write_own(tmp_path)), "MEDIA_PATH": str(tmp_path / "library")}
    async with _run(data, **named) as run:
        await run.says("Ctrl-C ends")
        asked = await command("album", "own-album-1", cwd=data.parent, env=_at(data))
        assert (asked.code, "2 queued" in asked.out) == (0, True), asked


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"CATALOG_DB": "/nope"}, "CATALOG_DB: /nope: there is no such file"),
        ({"MEDIA_PATH": "/nope"}, "MEDIA_PATH: there is no folder /nope here"),
        (
            {"TORRENTINO_URL": "http://127.0.0.1:9/api/v1", "TORRENTINO_DEST_MOUNT": "/nope"},
            "TORRENTINO_DEST_MOUNT: there is no folder /nope here",
        ),
        ({"TORRENTINO_URL": "http://127.0.0.1:9/api/v1"}, "TORRENTINO_DEST_ROOT: there is no"),
        ({"LEASE_S": "soon"}, "LEASE_S: got 'soon'"),
        ({"BOOTSTRAP_ADMIN_KEY_FILE": "/nope"}, "BOOTSTRAP_ADMIN_KEY_FILE: got '/nope'"),
    ],
)
async def test_what_is_not_there_is_one_line(data: Path, env: dict[str, str], words: str) -> None:
    """F11: at the start, before anything is made or started."""
    async with _run(data, **env) as run:
        assert await run.ends() == 1
        first, *rest = run.text.splitlines()
        assert first.startswith("starting")
        assert len(rest) == 1, run.text
        assert rest[0].startswith(words)
    assert _left(data) == []
