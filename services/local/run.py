"""`make run`: the whole system on this machine, with a sample album.

Embedded PostgreSQL and NATS, a stand-in for Torrentino and a sample catalog replace what the
environment does not name; selection.py chooses. All state is in one folder and survives restarts.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from rich.console import Console

from services.local.backends import Backends, CannotStart
from services.local.selection import select_backends
from services.local.show import Show
from services.registry import every_service
from shared import logs
from shared.app import make_app
from shared.ops import OpsServer
from shared.process import build_all
from shared.settings import Settings
from shared.signals import on_signals
from shared.stop import unless
from shared.supervisor import serve
from shared.web import WebServer

_REPORT_S = 2.0


class _Stopped(Exception):
    """A signal came."""


async def run(data: Path, *, once: bool, take_over_media: bool = False) -> int:
    """Start everything, show the sample album, serve until a signal; return the exit code.

    `once`: end with 0 when the sample album is on disk and decodes, else with 1 and the reason.
    `take_over_media`: a media root that belongs to another database is taken over.

    Raises:
        DownloadsError: it cannot start, and nothing is left running.
    """
    console = Console(highlight=False, soft_wrap=True)
    with _locked_state(data) as log:
        backends = replace(_select(data), takes_over_media=take_over_media)
        logs.configure(backends.settings, log)
        stop = asyncio.Event()
        on_signals(stop, at_once=backends.end_now)
        for remark in backends.remarks:
            console.print(remark)
        try:
            async with _started(backends, stop, console) as settings:
                return await _serve_and_show(backends, settings, stop, console, once=once)
        except _Stopped:
            console.print(await asyncio.to_thread(_stop_message, backends))
            return int(once)


@contextmanager
def _locked_state(data: Path) -> Iterator[TextIO]:
    """Lock the folder for this run and open its log; the lock ends with the run."""
    with _state_errors(data):
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "lock").open("w", encoding="ascii")
        log = (data / "service.log").open("a", encoding="utf-8", buffering=1)
    with lock, log:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(
                f"another run uses {data}: stop it first, or name another folder with --data"
            ) from None
        yield log


def _select(data: Path) -> Backends:
    with _state_errors(data):
        return select_backends(data.resolve(), os.environ)


@contextmanager
def _state_errors(data: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotStart(
            f"cannot keep state in {data}: {error.strerror} ({error.filename})"
        ) from error


@asynccontextmanager
async def _started(
    backends: Backends, stop: asyncio.Event, console: Console
) -> AsyncIterator[Settings]:
    """The embedded servers, started, unless the stop comes first."""
    starting = backends.started()
    reporting = asyncio.create_task(_report(backends, console))
    try:
        settings = await unless(stop, starting.__aenter__())
    finally:
        reporting.cancel()
    if settings is None:
        raise _Stopped
    try:
        # Not earlier: other users must not read the state, the logs and the servers' files.
        os.umask(settings.umask_bits)
        settings.media_root.mkdir(exist_ok=True)
        yield settings
    finally:
        await starting.__aexit__(None, None, None)


async def _report(backends: Backends, console: Console) -> None:
    """Print every few seconds which servers are still starting."""
    while True:
        await asyncio.sleep(_REPORT_S)
        console.print(f"still starting {', '.join(sorted(backends.awaited))} …")


def _stop_message(backends: Backends) -> str:
    if not backends.has_sample:
        return "stopped"
    there, wanted = backends.in_place()
    return f"stopped; {there} of {wanted} in place"


async def _serve_and_show(
    backends: Backends,
    settings: Settings,
    stop: asyncio.Event,
    console: Console,
    *,
    once: bool,
) -> int:
    app = make_app(settings, name="all")
    duties = [*build_all(app, every_service(*backends.services)), OpsServer(app)]
    [server] = [duty for duty in duties if isinstance(duty, WebServer)]
    serving = asyncio.create_task(serve(app, duties, stop))
    show = Show(console=console, backends=backends, settings=settings, server=server)
    showing = asyncio.create_task(show.run(once=once))
    try:
        await asyncio.wait([serving, showing], return_when=asyncio.FIRST_COMPLETED)
        if not once:
            await asyncio.wait([serving])
        stopped = stop.is_set()
    finally:
        stop.set()
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        await serving
    if stopped:
        # The services ended first, so an error of the show is expected.
        raise _Stopped
    return showing.result()
