"""A process that has imported everything and forks one for each service that shall run.

A start costs a fork instead of a second of imports. `python -m tests.crash.zygote` reads one
`Start` as JSON a line, and answers with the pid, and later with how it ended. At the end of its
input it kills what still runs.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import selectors
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from services.registry import every_service
from shared import crashpoints, process
from shared.bus.nats import Bus
from shared.errors import AttemptFailed, ErrorType
from shared.settings import EVERY_SERVICE, Service
from tests.crash.planted import BUGS

# What a crash costs by the clock, scaled down so that hundreds fit an hour: nothing else changes.
_SCALED: dict[tuple[str, str], float] = {
    ("services.ticketer.tickets", "ASKING_S"): 3.0,
    ("services.ticketer.adder", "ADDING_S"): 3.0,
    ("services.ticketer.direct", "UNSETTLED_S"): 3.0,
    ("services.ticketer.direct", "INDEXERS_FAILED_S"): 1.0,
    ("services.poller.download_verdict", "ADDING_S"): 3.0,
    ("services.poller.download_verdict", "MISSING_LEAST_S"): 1.0,
    ("services.poller.watched_time", "LONGEST_GAP_LEAST_S"): 0.8,
    ("shared.db.releases", "ASKING_S"): 3.0,
    ("shared.db.releases", "PARTIAL_FOR_S"): 0.5,
    ("services.reaper.__main__", "SWEEP_EVERY_S"): 0.3,
    ("services.bridge.requests_store", "ANNOUNCE_S"): 0.5,
    ("services.bridge.receipt", "UPLOAD_S"): 0.5,
    ("shared.bus.streams", "ACK_WAIT_S"): 2.0,
    ("shared.bus.consumer", "PROGRESS_S"): 0.5,
    ("shared.bus.consumer", "AGAIN_S"): 0.5,
}
_TEMP_AGE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Start:
    """One process: what runs in it, and what happens to it at which points."""

    services: Sequence[Service]
    env: dict[str, str]
    # Where it logs to, and where it notes the points that it reached.
    log: str
    reached: str
    # Killed when one of these points is reached for the n-th time: [point, n].
    kills: Sequence[tuple[str, int]] = ()
    # Frozen at one for so many seconds: [point, n, seconds].
    freeze: tuple[str, int, float] | None = None
    # Torrentino refuses the first ticket that this process asks for.
    refused: bool = False
    # So many wake-ups in ten are lost.
    deaf: int = 0
    # A mistake that the search has to find, by its name in `planted`.
    bug: str = ""


class _Hook:
    """What `crashpoints.reached` calls in a forked process."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._times: dict[str, int] = {}
        self._kills = {(at, nth) for at, nth in start.kills}
        self._lock = threading.Lock()
        self._notes = os.open(start.reached, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, point: str) -> None:
        with self._lock:
            n = self._times[point] = self._times.get(point, 0) + 1
            if n == 1:
                os.write(self._notes, f"{point}\n".encode())
            if (point, n) in self._kills:
                os.write(self._notes, f"killed {point}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)
            frozen = self._start.freeze
            if frozen is not None and (point, n) == tuple(frozen[:2]):
                _freeze(frozen[2])
        if self._start.refused and point == "ticketer.posting" and n == 1:
            raise AttemptFailed(ErrorType.PARSE, "refused, says the crash search")


def _freeze(seconds: float) -> None:
    """Stop every thread of this process; a shell lets it go on."""
    script = f"sleep {seconds:g}; kill -CONT {os.getpid()}"
    os.posix_spawn("/bin/sh", ["sh", "-c", script], dict(os.environ))
    os.kill(os.getpid(), signal.SIGSTOP)


def _scale_down() -> None:
    for (module_name, constant), seconds in _SCALED.items():
        module = importlib.import_module(module_name)
        assert hasattr(module, constant), f"{module_name} has no {constant} any more"
        setattr(module, constant, seconds)
    defaults = importlib.import_module("services.reaper.service").Reaper.__init__.__kwdefaults__
    assert "temp_age_s" in defaults
    defaults["temp_age_s"] = _TEMP_AGE_S


def _make_deaf(tenths: int) -> None:
    heard, count = Bus.wake, 0

    async def wake(bus: Bus, kind: Any) -> None:
        nonlocal count
        count += 1
        if count % 10 >= tenths:
            await heard(bus, kind)

    Bus.wake = wake  # type: ignore[method-assign,assignment]


def _live(start: Start) -> None:
    """Be the process that `start` describes."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(start.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(start.env)
    if start.bug:
        BUGS[start.bug]()
    if start.deaf:
        _make_deaf(start.deaf)
    crashpoints.install(_Hook(start))
    process.main(every_service(*start.services))


def _fork(start: Start, forget: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        forget()
        _live(start)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        print(end.code, file=sys.stderr, flush=True)
    except BaseException:  # noqa: BLE001 (the process ends with it)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    """Fork as told until the input ends, then kill what is left."""
    _scale_down()
    every_service(*EVERY_SERVICE)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    alive: dict[int, int] = {}  # pid by pidfd
    rest = b""

    def forget() -> None:
        selector.close()
        for fd in alive:
            os.close(fd)

    while True:
        for key, _ in selector.select():
            if key.fd == 0:
                data = os.read(0, 1 << 20)
                if not data:
                    _kill_all(alive)
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    pid = _fork(Start(**json.loads(line)), forget)
                    fd = os.pidfd_open(pid)
                    alive[fd] = pid
                    selector.register(fd, selectors.EVENT_READ)
                    _say({"pid": pid})
            else:
                selector.unregister(key.fd)
                pid = alive.pop(key.fd)
                os.close(key.fd)
                _say({"ended": pid, "status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})


def _kill_all(alive: dict[int, int]) -> None:
    for pid in alive.values():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _say(what: dict[str, int]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


# --- the other side


@dataclass(frozen=True)
class Forked:
    """A running process; `ended` has its exit status, negative for a signal."""

    pid: int
    ended: asyncio.Future[int]

    def send(self, signal_: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if not self.ended.done():
            # It may have ended a moment ago, and that is not told yet.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal_)


@dataclass
class Zygote:
    """The helper process, as the runner has it: `start` it in the loop that uses it."""

    _process: asyncio.subprocess.Process | None = None
    _reading: asyncio.Task[None] | None = None
    _starting: list[asyncio.Future[Forked]] = field(default_factory=list)
    _running: dict[int, Forked] = field(default_factory=dict)

    async def start(self) -> None:
        """Start it; imports go on while the caller does."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.crash.zygote"),
            cwd=Path(__file__).parents[2],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._reading = asyncio.create_task(self._read())

    async def fork(self, start: Start) -> Forked:
        """Start a process."""
        assert self._process is not None
        assert self._process.stdin is not None
        waiting: asyncio.Future[Forked] = asyncio.get_running_loop().create_future()
        self._starting.append(waiting)
        self._process.stdin.write(json.dumps(asdict(start)).encode() + b"\n")
        await self._process.stdin.drain()
        return await asyncio.wait_for(waiting, 30)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        loop = asyncio.get_running_loop()
        async for line in self._process.stdout:
            said = json.loads(line)
            if "pid" in said:
                forked = Forked(said["pid"], loop.create_future())
                self._running[forked.pid] = forked
                self._starting.pop(0).set_result(forked)
            else:
                self._running.pop(said["ended"]).ended.set_result(said["status"])
        for waiting in self._starting:
            waiting.set_exception(RuntimeError("the zygote has ended"))

    async def stop(self) -> None:
        """End it, and with it whatever it has forked."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._reading is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reading


if __name__ == "__main__":
    serve()
