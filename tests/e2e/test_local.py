"""`pezzottify-downloads local`: the whole system with one command, started, stopped and killed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from shared.local.servers import free_port
from tests.world import eventually

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
            *(sys.executable, "-m", "services.cli", "local", "--data", str(data), *args),
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


def _left(data: Path) -> list[psutil.Process]:
    """The processes that run on this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
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
    assert len(_files(data)) == _TRACKS
    assert _left(data) == []
    async with _run(data, "--once") as third:
        assert await third.ends() == 0, third.text
        assert f"{_TRACKS} already available" in third.text
    assert _left(data) == []


async def test_serving_ends_with_ctrl_c(data: Path) -> None:
    """Ctrl-C, also in the middle of the album, ends with 0 within the grace and leaves nothing."""
    async with _run(data) as run:
        await run.says("searching ")
        run.process.send_signal(signal.SIGINT)
        assert await run.ends(_GRACE_S) == 0, run.text
        assert "Traceback" not in run.text
    assert _left(data) == []


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
    assert (data / "admin.key").stat().st_mode & 0o777 == 0o600
    below = [path for name in ("postgres", "nats") for path in (data / name).rglob("*")]
    assert not any(path.stat().st_mode & 0o002 for path in below)


async def test_a_second_signal_ends_at_once_with_its_servers(data: Path) -> None:
    """Asked twice, it ends without waiting, and its servers are told to."""
    async with _run(data) as run:
        await run.says("searching ")
        run.process.send_signal(signal.SIGINT)

        async def stopping() -> bool:
            return '"stopping"' in (data / "service.log").read_text(encoding="utf-8")

        await eventually(stopping)
        run.process.send_signal(signal.SIGINT)
        assert await run.ends(_GRACE_S) in (0, 128 + signal.SIGINT)

    async def left() -> list[psutil.Process]:
        return _left(data)

    await eventually(left, lambda processes: not processes)


async def test_a_taken_port_is_one_line(data: Path) -> None:
    """Somebody else serves PORT: one line that says so, exit 1, nothing left running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        async with _run(data, PORT=port) as run:
            assert await run.ends() == 1
            assert "Traceback" not in run.text
            assert run.text.splitlines()[-1].startswith(f"PORT: cannot listen on 127.0.0.1:{port}")
    assert _left(data) == []


async def test_one_run_for_a_folder_and_a_stop_while_it_starts(data: Path) -> None:
    """A second run on the folder is refused in one line; a signal during the start is not lost."""
    async with _run(data, "--once") as first:
        await first.says("starting")
        async with _run(data) as second:
            assert await second.ends() == 1
            assert second.text.splitlines()[-1].startswith(f"another run uses {data}")
        first.process.terminate()
        assert await first.ends(_GRACE_S) == 1
        assert "stopped before the album was in place" in first.text
        assert "Traceback" not in first.text
    assert _left(data) == []


async def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """What stands in the way of the state is told in one line."""
    (tmp_path / "file").write_text("")
    async with _run(tmp_path / "file" / "data") as run:
        assert await run.ends() == 1
        assert run.text.splitlines()[-1].startswith("cannot keep state in")
        assert "Traceback" not in run.text
