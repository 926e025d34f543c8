"""Serving an ASGI app inside a service that has its own signals, stop and logs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from shared.errors import DownloadsError

_BACKLOG = 512
# How long a request may take to come in, headers and body; uvicorn itself would wait for ever.
_REQUEST_S = 20.0


class _Impatient(H11Protocol):
    """Ends connections on which a request does not come to its end, so that none are used up."""

    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """One deadline from a request's first byte on, however much comes meanwhile."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._unwatch()
        elif self._overdue is None:
            self._overdue = self.loop.call_later(_REQUEST_S, self.transport.abort)

    def _unwatch(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The runtime stops all duties together; uvicorn must not answer a signal by itself.
        yield


class WebServer:
    """A duty that serves `app` on an address until the stop; finishes open requests first."""

    def __init__(
        self, name: str, app: ASGIApp, *, host: str, port: int, variable: str, grace_s: float
    ) -> None:
        self.name = name
        self._app = app
        self._host = host
        self._port = port
        self._variable = variable
        self._grace_s = grace_s
        # Set when the server accepts connections; `port` is then the real one.
        self.started = asyncio.Event()

    @property
    def host(self) -> str:
        """The address that is served."""
        return self._host

    @property
    def port(self) -> int:
        """The port that is served: the one asked for, or the free one that 0 got."""
        return self._port

    async def run(self, stop: asyncio.Event) -> None:
        config = uvicorn.Config(
            self._app,
            host=self._host,
            port=self._port,
            http=_Impatient,
            log_config=None,
            access_log=False,
            lifespan="off",
            # Half the grace: a client that keeps its connection open must not use it all up.
            timeout_graceful_shutdown=max(1, int(self._grace_s / 2)),
            ws="none",
            server_header=False,
        )
        sock = listener(self._host, self._port, variable=self._variable)
        self._port = sock.getsockname()[1]
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[sock]))
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
                sock.close()


class AddressInUse(DownloadsError):
    """The address of a server is taken."""


def listener(host: str, port: int, *, variable: str) -> socket.socket:
    """A socket on which connections wait for a server from now on, instead of being refused.

    Raises:
        AddressInUse: somebody else listens there, or it is no address of this machine; `variable`
            is the setting to change.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise AddressInUse(
            f"{variable}: cannot listen on {host}:{port} ({error.strerror}):"
            f" stop what uses it, or set another {variable}"
        ) from error
    return sock
