"""A web server for an ASGI app inside a service that has its own signals, stop and logs.

uvicorn has some settings too few for it: none leaves the signals to the process, none limits how
long a request takes to arrive or an answer to be read, and none limits the connections of one peer.
The classes that fill the gap use uvicorn's public names only.
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
# How long a request may take to arrive, headers and body, and how long an answer may take to be
# read; uvicorn itself would wait for ever.
REQUEST_S = 20.0
RESPONSE_S = 20.0
# Each takes a file descriptor, of which a process often has 1,024.
_CONNECTIONS = 256
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Length: 0\r\n\r\n"
)


class _DeadlineProtocol(H11Protocol):
    """Ends connections on which nothing moves: no request arrives, or no answer is read.

    With as many connections as it takes, a further one gets 503 at once.
    """

    most = 0
    """Connections of this server at once; one address may have half of them."""

    _arriving: asyncio.TimerHandle | None = None
    _leaving: asyncio.TimerHandle | None = None
    _abort: Callable[[], None]

    def connection_made(self, transport: Any) -> None:
        self._abort = transport.abort
        # `pause_writing` and `resume_writing` then tell whether all is sent.
        transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)
        if self._is_one_too_many():
            transport.write(_TOO_MANY)
            transport.close()
        self._watch()

    def _is_one_too_many(self) -> bool:
        others = [each for each in self.connections if isinstance(each, H11Protocol)]
        peer = self.client and self.client[0]
        of_peer = sum(1 for each in others if each.client and each.client[0] == peer)
        return len(others) > self.most or of_peer > max(1, self.most // 2)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._leaving is None:
            loop = asyncio.get_running_loop()
            self._leaving = loop.call_later(RESPONSE_S, self._abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._arriving, self._leaving):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """One deadline from a request's first byte on; further bytes do not extend it."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            if self._arriving is not None:
                self._arriving.cancel()
                self._arriving = None
        elif self._arriving is None:
            loop = asyncio.get_running_loop()
            self._arriving = loop.call_later(REQUEST_S, self._abort)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # A signal stops all duties of the process together, by `shared.signals`.
        yield


class WebServer:
    """A duty that serves `app` on an address until the stop, and then finishes open requests."""

    def __init__(
        self,
        name: str,
        app: ASGIApp,
        *,
        host: str,
        port: int,
        variable: str,
        grace_s: float,
        connections: int = _CONNECTIONS,
    ) -> None:
        self.name = name
        self.app = app
        self._host = host
        self._port = port
        self._variable = variable
        self._grace_s = grace_s
        self._connections = connections
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
            http=type("Protocol", (_DeadlineProtocol,), {"most": self._connections}),
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
