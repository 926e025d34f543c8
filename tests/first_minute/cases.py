"""What newcomers do, and what they have to see. Each returns what it saw, for the table."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress

from tests.first_minute.copies import Copy, NotPossible, Said, copied, on_a_disk_of
from tests.support.world import eventually

_TRACKS = 12
_ALL = [
    f"{_TRACKS} of {_TRACKS} files are in place and decode.",
    f"The catalog names them: playable {_TRACKS} of {_TRACKS}.",
]
# Five, and one for a busy machine.
_SILENCE_S = 6.0
_FIRST_LINE_S = 3.0

Row = tuple[str, str]
Rows = AsyncIterator[Row]


def _arrived(said: Said) -> str:
    said.require(said.code == 0 and said.own()[-2:] == _ALL, "not all files are in place")
    return said.own()[-1]


def _one_line(said: Said, *words: str) -> str:
    """The last line, which says it all; what comes before is what any run says first."""
    last = said.own()[-1]
    said.require(said.code not in (0, None), "it did not fail")
    said.require(all(word in last for word in words), f"the last line lacks {words}")
    return last


def _stopped(said: Said, files: int) -> str:
    if not said.own():
        said.require("Interrupt" in said.text, "nothing says that it was stopped")
        return "stopped between two commands of make, which says so"
    last = said.own()[-1]
    there = f"stopped; {files} of {_TRACKS} in place"
    early = ("stopped", "stopped while setting up; the same command continues from here")
    said.require(last in (there, *early), f"the last line is not {there!r}")
    return last


@contextmanager
def _taken(port: int) -> Iterator[None]:
    """Another program listens there, or an older run."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # What another program of this machine has taken is as good.
        with suppress(OSError):
            sock.bind(("127.0.0.1", port))
            sock.listen()
        yield


async def as_root_in_a_closed_folder(*, short: bool = False) -> Rows:
    """F1: below a folder that only its owner enters, whose path has blanks and 200 characters."""
    with copied("a clone with a long name, 100% (new) " + "x" * 130) as copy:
        first = await copy.make("run", args="--once")
        yield "first run, in a closed folder, long path with blanks", _arrived(first)
        first.require(
            first.longest_silence_s < _SILENCE_S, f"{first.longest_silence_s:.1f} s silent"
        )
        yield "longest silence of set-up and first run", f"{first.longest_silence_s:.1f} s"
        size_mb = sum(p.lstat().st_blocks for p in (copy.folder / ".venv").rglob("*")) // 2000
        ready = next(line for line in first.own() if line.startswith(".venv is ready"))
        yield "set-up", f"{ready}; {size_mb} MB"
        again = await copy.make("run", args="--once")
        _arrived(again)
        again.require(again.lines[0][0] < _FIRST_LINE_S, "the second start is slow to speak")
        yield "second start: first line after", f"{again.lines[0][0]:.1f} s"
        async for row in _with_a_copy(copy, short=short):
            yield row


async def tests_in_a_closed_folder() -> Rows:
    """F1: the tests' PostgreSQL and NATS start there as well."""
    with copied("a clone") as copy:
        tests = ("tests/services/test_local_servers.py",)
        await copy.make("setup")
        said = await copy.run(".venv/bin/python", "-m", "pytest", "-q", *tests)
        said.require(said.code == 0, "tests fail here")
        yield "tests with PostgreSQL and NATS in the closed folder", said.own()[-1]


async def shortly_as_root() -> Rows:
    """The same without what the tests of the suite do as well: kills, and Ctrl-C on the way."""
    async for row in as_root_in_a_closed_folder(short=True):
        yield row


async def _with_a_copy(copy: Copy, *, short: bool) -> Rows:
    """What fails, or is stopped, in a copy that is set up."""
    one: tuple[tuple[str, dict[str, str], tuple[str, ...]], ...] = (
        ("CATALOG_DB=/nope", {"CATALOG_DB": "/nope"}, ("CATALOG_DB", "there is no such file")),
        ("a media folder that is not there", {"MEDIA_PATH": "/nope"}, ("MEDIA_PATH", "/nope")),
        (
            "an incoming folder that is not there",
            {"TORRENTINO_URL": "http://127.0.0.1:9/api/v1", "TORRENTINO_DEST_MOUNT": "/nope"},
            ("TORRENTINO_DEST_MOUNT", "/nope"),
        ),
        ("a setting that is none", {"LEASE_S": "soon"}, ("LEASE_S: got 'soon'",)),
    )
    for what, env, words in one:
        yield what, _one_line(await copy.make("run", args="--once", env=env), *words)
    with _taken(3002), _taken(9091):
        for variable, port in (("PORT", 3002), ("OPS_PORT", 9091)):
            said = await copy.make("run", args="--once", env={variable: str(port)})
            yield (
                f"{variable}={port}, which is taken",
                _one_line(said, f"{variable}: cannot listen"),
            )
        said = await copy.make("run", args="--once", env={"PORT": "", "OPS_PORT": ""})
        _arrived(said)
        told = [line for line in said.own() if line.startswith("port ")]
        said.require(len(told) == 2, "free ports were not told")
        yield "the usual ports, which are taken", "; ".join(told)
    if short:
        return
    async for row in _killed_and_twice(copy):
        yield row
    for seconds in (0.2, 2.0, 10.0):
        data = f"--data data-{seconds}"
        said = await copy.make("run", args=data, interrupt_after_s=seconds)
        yield f"Ctrl-C after {seconds:g} s", _stopped(said, copy.files(f"data-{seconds}"))


async def _killed_and_twice(copy: Copy) -> Rows:
    data = "--data other"
    async with copy.running(*copy.command("run", args=data)) as (process, said):
        await _says(said, "completed ")
        second = await copy.make("run", args=data)
        yield "a second run at once", _one_line(second, "another run uses")
        os.killpg(process.pid, signal.SIGKILL)
    again = await copy.make(
        "run", args=f"--once {data}", env={"LEASE_S": "2", "STALL_TIMEOUT_S": "4"}
    )
    yield "after kill -9 in the middle", _arrived(again)


async def _says(said: Said, words: str) -> None:
    async def it_does() -> bool:
        return words in said.text

    await eventually(it_does, within_s=120)


async def as_another_user() -> Rows:
    """As a user without a home; stopped in the middle of setting up, and gone on."""
    # Ours may be the administrator's alone, as below /root.
    python = "/usr/bin/python3"
    if not _is_usable(python, user="games"):
        raise NotPossible(f"{python} cannot make a .venv for another user")
    with copied("clone", user="games", python=python) as copy:
        for seconds in (0.2, 2.0, 10.0):
            said = await copy.make("run", interrupt_after_s=seconds)
            yield f"set-up, Ctrl-C after {seconds:g} s", _stopped(said, copy.files())
        first, second = await asyncio.gather(
            copy.make("run", args="--once"), copy.make("run", args="--once --data other")
        )
        waited = [said for said in (first, second) if "waiting for it to end" in said.text]
        first.require(len(waited) == 1, "no set-up waited for the other")
        _arrived(second)
        yield "two first runs at once, as another user", _arrived(first)


def _is_usable(python: str, *, user: str) -> bool:
    program = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
    try:
        done = subprocess.run([python, "-c", program], user=user, capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


async def with_no_index() -> Rows:
    """F6: no network, or no index in it."""
    with copied("clone") as copy:
        nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_FIND_LINKS": ""}
        said = await copy.make("run", env=nowhere)
        said.require(said.longest_silence_s < _SILENCE_S, "it was silent")
        yield "no package index", _one_line(said, "no package index answers", "PIP_INDEX_URL")


async def on_small_disks() -> Rows:
    """F5, F6: 30 MB, and 500 MB, which is less than MIN_FREE_DISK_MB."""
    with on_a_disk_of(30) as copy:
        yield "a disk of 30 MB", _one_line(await copy.make("run"), "MB free", "free some space")
    with on_a_disk_of(500) as copy:
        said = await copy.make("run", args="--once")
        words = ("MiB free", "MIN_FREE_DISK_MB wants 1024")
        yield "a disk of 500 MB", _one_line(said, "not finished", *words)
        waits = [line for line in said.own() if line.startswith("waits: ")]
        said.require(len(waits) == 1 and words[0] in waits[0], "not told meanwhile, once")
        said = await copy.make("run", args="--once --data other", env={"MIN_FREE_DISK_MB": "1"})
        yield "500 MB with MIN_FREE_DISK_MB=1", _arrived(said)


def with_python(python: str) -> Callable[[], Rows]:
    """A first run on another Python, and an error on it: `except*` changed within 3.11."""

    async def case() -> Rows:
        with copied("clone", python=python) as copy:
            said = await copy.make("run", args="--once")
            yield f"first run on {python}", _arrived(said)
            with _taken(9091):
                said = await copy.make("run", env={"OPS_PORT": "9091"})
                yield f"a taken port on {python}", _one_line(said, "OPS_PORT: cannot listen")

    return case
