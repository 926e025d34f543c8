"""The stand-in on a real socket, in the caller's event loop."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from services.local.torrentino.app import make_app
from services.local.torrentino.config import StandinConfig
from services.local.torrentino.core import Core, make_core
from services.local.torrentino.engine import Engine
from services.local.torrentino.faults import Faults
from services.local.torrentino.routing import API
from services.local.torrentino.source import Source

_KEEP_ALIVE_S = 75


class Standin:
    """One stand-in server: it starts on `start` or `async with`, and stops at once.

    Between `start` and `stop` it answers at `url`. Its tickets survive the process with a
    database, else only `restart`.
    """

    def __init__(self, config: StandinConfig, source: Source, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.url = ""
        self._config = config
        self.core: Core = make_core(config, source, self.faults)
        self._engine = Engine(self.core)
        self._port = config.port
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def downloads(self) -> Path | None:
        """The folder of finished torrents, None if nothing is written."""
        return self._config.downloads

    @property
    def requests(self) -> Counter[str]:
        """The number of requests by kind: `POST /tickets`, `GET /tickets/{id}`, ..."""
        return self.core.requests

    @property
    def searches(self) -> list[str]:
        """The queries of `/search` that went to the indexers, in order."""
        return self.core.searches

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _exc: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen and begin to work; return once requests are answered.

        Raises:
            OSError: the address cannot be bound.
        """
        listener = _listen(self._config.host, self._port)
        self._port = listener.getsockname()[1]
        self.url = f"http://{self._config.host}:{self._port}{API}"
        self._engine = Engine(self.core)
        connections = _Connections()
        app = make_app(self.core, self._engine, connections.hang_up)
        self._server = _Server(app, connections)
        self._serving = asyncio.create_task(self._server.serve([listener]), name="stand-in HTTP")
        await self._server.ready.wait()
        self._engine.start()

    async def stop(self) -> None:
        """Stop all work where it is and close the database; harmless if not started."""
        await self._halt()
        self.core.database.close()

    async def restart(self) -> None:
        """Stop and start again on the same port, as after a crash of the real server.

        Connections are cut. Downloading tickets continue; acquiring, converting and placing ones
        stay stuck; zombie downloads are dropped. librqbit checks its torrents again.
        """
        await self._halt()
        self.core.torrents.restarted()
        await self.start()

    def tickets(self) -> list[Mapping[str, object]]:
        """All tickets as the API shows them, in its order."""
        return [ticket.json() for ticket in self.core.tickets.every()]

    def forget_torrent(self, info_hash: str) -> None:
        """Let the torrent client lose a torrent; its files stay.

        Raises:
            KeyError: there is none.
        """
        self.core.torrents.forget(info_hash)

    def break_torrent(self, info_hash: str) -> None:
        """Put a torrent into the state `error` until it is removed.

        Raises:
            KeyError: there is none.
        """
        self.core.torrents.break_down(info_hash)

    def set_state(self, ticket_id: str, state: Mapping[str, object]) -> None:
        """Set the ticket's state and stop the work in progress for it.

        The loops continue from it: `pending` is acquired, `auto_approved` downloaded; a forced
        `downloading`, `converting` or `placing` stays as it is.

        Raises:
            KeyError: there is no such ticket.
        """
        ticket = self.core.tickets.get(ticket_id)
        if ticket is None:
            raise KeyError(ticket_id)
        self._engine.force(ticket, dict(state))

    async def _halt(self) -> None:
        if self._server is None or self._serving is None:
            return
        self._server.leave.set()
        await self._serving
        self._server = self._serving = None
        await self._engine.close()


class _Connections:
    """The open connections by client address, so that one request's can be cut."""

    def __init__(self) -> None:
        self._by_client: dict[tuple[str, int], asyncio.Transport] = {}

    def add(self, client: tuple[str, int], transport: asyncio.Transport) -> None:
        self._by_client[client] = transport

    def discard(self, client: tuple[str, int]) -> None:
        self._by_client.pop(client, None)

    def hang_up(self, scope: Scope) -> None:
        """Close the connection of this request without another byte."""
        transport = self._by_client.get(scope["client"])
        if transport is not None:
            transport.abort()

    def hang_up_all(self) -> None:
        for transport in list(self._by_client.values()):
            transport.abort()


class _Server(uvicorn.Server):
    """uvicorn without signal handlers, that starts and stops without polling."""

    def __init__(self, app: ASGIApp, connections: _Connections) -> None:
        config = uvicorn.Config(
            app,
            http=_protocol(connections),
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        super().__init__(config)
        self.ready = asyncio.Event()
        self.leave = asyncio.Event()
        self._connections = connections

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The caller handles signals."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.leave.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close idle connections properly, cut the others, and wait for no client."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(0)  # sends the closing frames
        self._connections.hang_up_all()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _protocol(connections: _Connections) -> type[asyncio.Protocol]:
    class Protocol(H11Protocol):
        """Registers each connection, so that `_Connections` can cut it."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if self.client is not None:
                connections.add(self.client, transport)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self.client is not None:
                connections.discard(self.client)

    return Protocol


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's delay only if the protocol is given
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
