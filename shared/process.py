"""A process that runs one or more services: settings once, then their duties until a signal."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from shared import logs
from shared.app import App, make_app
from shared.duty import Duty
from shared.exits import errors_in_lines
from shared.ops import OpsServer
from shared.settings import SECRETS, SERVICES, Service, Settings, load
from shared.signals import on_signals
from shared.supervisor import serve

log = structlog.get_logger()

Build = Callable[[App], list[Duty]]


def main(services: dict[Service, Build]) -> None:
    """Run services in this process until a signal, then exit with 0."""
    with errors_in_lines():
        settings = load(list(services))
        # Not the umask that the process inherited: the catalog server reads the placed files.
        os.umask(settings.umask_bits)
        logs.configure(settings)
        blank_secrets()
        close_to_others()
        asyncio.run(_run(settings, services))


def blank_secrets() -> None:
    """Blank the values of secrets in `/proc/<pid>/environ`; `os.environ` keeps them.

    Other processes of this user can read that file, and children of this process decode files of
    strangers.
    """
    if sys.platform != "linux":
        return
    # proc(5): behind the name in brackets, env_start and env_end are the 48th and 49th field.
    fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])
    names = {name.upper().encode() for name in SECRETS}
    place = start
    for entry in ctypes.string_at(start, end - start).split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name in names:
            ctypes.memset(place + len(name) + 1, ord("*"), len(value))
        place += len(entry) + 1


def close_to_others() -> None:
    """Keep other processes of this user, such as a decoder, out of this one's memory and files.

    What `/proc/<pid>` has of it then belongs to root, and only root may trace it. There are no core
    dumps. A child that starts a program is open again.
    """
    if sys.platform != "linux":
        return
    pr_set_dumpable = 4
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_dumpable, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


async def _run(settings: Settings, services: dict[Service, Build]) -> None:
    name = "all" if set(services) >= set(SERVICES) else "+".join(services)
    stop = asyncio.Event()
    deadline = _Deadline(settings.shutdown_grace_s)
    on_signals(stop, stopping=deadline.start)
    app = make_app(settings, name=name)
    await serve(app, [*build_all(app, services), OpsServer(app)], stop)
    deadline.closed.set()


class _Deadline:
    """Ends a process that hangs after the grace: a system call of a thread cannot be ended."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        # Set when all is handed back and closed: the exit is then a success.
        self.closed = threading.Event()

    def start(self) -> None:
        timer = threading.Timer(self._grace_s, self._end)
        timer.daemon = True
        timer.start()

    def _end(self) -> None:
        log.warning("stop_overdue", handed_back=self.closed.is_set())
        os._exit(0 if self.closed.is_set() else 1)


def build_all(app: App, services: dict[Service, Build]) -> list[Duty]:
    """The duties of several services that share one process."""
    return [duty for build in services.values() for duty in build(app)]
