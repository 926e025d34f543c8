"""Nothing in this folder starts a process or a server: the guard of conftest.py sees to it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from services.local.audio import make_tone
from services.local.servers import Nats
from services.local.torrentino import SongList, Standin, StandinConfig
from shared.media.tools import AudioTools
from tests.unit.conftest import Guard


def _run() -> None:
    subprocess.run([sys.executable, "--version"], check=True)


def _spawn() -> None:
    os.posix_spawn(sys.executable, [sys.executable, "--version"], {})


def _listen() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))


@pytest.mark.parametrize("start", [_run, _spawn, _listen])
def test_a_process_or_a_port_is_refused(start: Callable[[], None], guard: Guard) -> None:
    """Whichever call of the standard library it takes."""
    with pytest.raises(PermissionError, match="no test of tests/unit"):
        start()
    assert len(guard.refused) == 1
    guard.refused.clear()


async def test_ffmpeg_and_embedded_servers_are_refused(guard: Guard, tmp_path: Path) -> None:
    """As the tests of the other folders start them."""
    tools = AudioTools(ffmpeg="ffmpeg", ffprobe="ffprobe")
    with pytest.raises(PermissionError):
        make_tone(tmp_path / "song.flac", seconds=1, codec="flac", frequency=440, tools=tools)
    with pytest.raises(PermissionError):
        await Nats(tmp_path / "nats").start()
    with pytest.raises(PermissionError):
        await Standin(StandinConfig(), SongList([])).__aenter__()
    assert len(guard.refused) == 3
    guard.refused.clear()


def test_a_hidden_error_fails_as_well(guard: Guard) -> None:
    """Code that catches every OSError does not hide what it tried."""
    with pytest.raises(pytest.fail.Exception, match="Popen"), guard.on(), suppress(OSError):
        _run()
    guard.refused.clear()
