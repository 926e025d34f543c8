"""A web server for an ASGI app inside a service that has its own signals, stop and logs.

uvicorn has two settings too few for it: none leaves the signals to the process, and none limits
how long a request takes to arrive. Both classes that fill the gap use uvicorn's public names only.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from shared.errors import DownloadsError

_BACKLOG = 512
# How long a request may take to arrive, headers and body; uvicorn itself would wait for ever.
REQUEST_S = 20.0


class _DeadlineProtocol(H11Protocol):
    """Ends connections on which a request does not arrive, so that slow clients use none up."""

    _deadline: asyncio.TimerHandle | None = None
    _abort: Callable[[], None]

    def connection_made(self, transport: Any) -> None:
        self._abort = transport.abort
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """One deadline from a request's first byte on; further bytes do not extend it."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._unwatch()
        elif self._deadline is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(REQUEST_S, self._abort)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # A signal stops all duties of the process together, by `shared.signals`.
        yield


class WebServer:
    """A duty that serves `app` on an address until the stop, and then finishes open requests."""

    def __init__(
        self, name: str, app: ASGIApp, *, host: str, port: int, variable: str, grace_s: float
    ) -> None:
        self.name = name
        self.app = app
        self._host = host
        self._port = port
        self._variable = variable
        self._grace_s = grace_s
        # Set when the server accepts connections; `port` is then the real one.
        self.started = asyncio.Event()

    @property
    def host(self) -> str:
        """The address that it listens on, or several separated by commas."""
        return self._host

    @property
    def port(self) -> int:
        """The port that it listens on; with 0, the free port that the system chose."""
        return self._port

    async def run(self, stop: asyncio.Event) -> None:
        config = uvicorn.Config(
            self.app,
            host=self._host,
            port=self._port,
            http=_DeadlineProtocol,
            log_config=None,
            access_log=False,
            lifespan="off",
            # Half the grace: a client that keeps its connection open must not use up all of it.
            timeout_graceful_shutdown=max(1, int(self._grace_s / 2)),
            ws="none",
            server_header=False,
        )
        sockets = listeners(self._host, self._port, variable=self._variable)
        self._port = sockets[0].getsockname()[1]
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=sockets))
        stopping = asyncio.create_task(stop.wait())
        try:
            self.started.set()
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            server.should_exit = True
            try:
                await serving
            finally:
                for sock in sockets:
                    sock.close()


class AddressInUse(DownloadsError):
    """The address of a server is taken."""


def listeners(hosts: str, port: int, *, variable: str) -> list[socket.socket]:
    """A socket for each of the addresses, separated by commas, all with the same port.

    Raises:
        AddressInUse: as `listener`.
    """
    found: list[socket.socket] = []
    try:
        for host in hosts.split(","):
            found.append(listener(host.strip(), port, variable=variable))
            port = found[0].getsockname()[1]
    except AddressInUse:
        for sock in found:
            sock.close()
        raise
    return found


def listener(host: str, port: int, *, variable: str) -> socket.socket:
    """A socket that listens from now on: connections wait for the server and are not refused.

    Raises:
        AddressInUse: another program listens there, or it is no address of this machine;
            `variable` is the setting to change.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        remedy = f"stop what uses it, or set another {variable}"
        if error.errno != errno.EADDRINUSE:
            remedy = f"{variable.removesuffix('PORT')}HOST wants an address of this machine"
        raise AddressInUse(
            f"{variable}: cannot listen on {host}:{port} ({error.strerror}): {remedy}"
        ) from error
    return sock
