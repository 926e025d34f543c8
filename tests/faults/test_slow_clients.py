"""Clients that take their time: each costs its own connection, and that only for a while."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from shared import web
from shared.metrics import HTTP_SECONDS
from tests.support.ingest_helpers import V1, serve
from tests.support.world import ADMIN, ADMIN_KEY, World, eventually


@asynccontextmanager
async def small_server(*, connections: int = 64) -> AsyncIterator[web.WebServer]:
    """A server with one route, which answers GET and POST."""
    routes = [Route("/", lambda _: PlainTextResponse("here"), methods=["GET", "POST"])]
    server = web.WebServer(
        "test",
        Starlette(routes=routes),
        host="127.0.0.1",
        port=0,
        variable="PORT",
        grace_s=1,
        connections=connections,
    )
    stop = asyncio.Event()
    serving = asyncio.create_task(server.run(stop))
    await server.started.wait()
    try:
        yield server
    finally:
        stop.set()
        await serving


async def test_a_client_that_trickles_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers or a body that never end cost one connection, and that only for a while."""
    monkeypatch.setattr(web, "REQUEST_S", 0.3)
    async with small_server() as server, httpx.AsyncClient() as client:
        heads = [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nHost: x\r\n"]
        slow = [asyncio.create_task(_trickle(server.port, head)) for head in heads]
        assert (await client.get(f"http://127.0.0.1:{server.port}/")).text == "here"
        async with asyncio.timeout(5):
            await asyncio.gather(*slow)


def silent_reader(port: int) -> socket.socket:
    """A connection that reads no answer."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.setblocking(False)
    return connection


async def pipeline(connection: socket.socket, request: bytes) -> None:
    """Send the request again and again, until nothing was taken for a while, or it is cut."""
    while True:
        async with asyncio.timeout(1):
            await asyncio.get_running_loop().sock_sendall(connection, request * 10)


async def until_still() -> None:
    """Wait until no request is answered any more."""
    answered = -1.0
    while (now := _answers()) != answered:
        answered = now
        await asyncio.sleep(0.5)


def _answers() -> float:
    [family] = HTTP_SECONDS.collect()
    return sum(sample.value for sample in family.samples if sample.name.endswith("_count"))


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel keeps a few answers of a connection, and not megabytes."""
    listener = web.listener

    def small(host: str, port: int, *, variable: str) -> socket.socket:
        sock = listener(host, port, variable=variable)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return sock

    monkeypatch.setattr(web, "listener", small)


@pytest.mark.usefixtures("small_buffers")
async def test_answers_that_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is ended; until then it has only its own place."""
    monkeypatch.setattr(web, "RESPONSE_S", 0.2)
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    async with small_server() as server:
        with silent_reader(server.port) as connection, pytest.raises(ConnectionError):
            await pipeline(connection, request)


@pytest.mark.usefixtures("small_buffers")
@pytest.mark.parametrize("headers", ["", f"Authorization: Bearer {ADMIN_KEY}\r\n"])
async def test_silent_readers_take_no_place(world: World, headers: str) -> None:
    """F31: eleven connections that pipeline and never read, with or without a key, delay no one."""
    api = await serve(world, "ingest")
    port = api.base_url.port
    assert port is not None
    request = f"GET {V1}/limits HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode()
    with ExitStack() as opened:
        silent = [opened.enter_context(silent_reader(port)) for _ in range(11)]
        for connection in silent:
            # More answers than the buffers have room for.
            await asyncio.get_running_loop().sock_sendall(connection, request * 400)
        await until_still()
        async with asyncio.timeout(5):
            answer = await api.get(f"{V1}/limits", headers=ADMIN)
        assert answer.status_code == 200


async def test_connections_are_counted() -> None:
    """One peer has half of them, and the next one of it is told so at once."""
    async with small_server(connections=8) as server:
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(4)]
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with asyncio.timeout(5):
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        writer.close()
        idle.pop()[1].close()
        await eventually(lambda: _answered(server.port), bool, within_s=5)
        for _, each in idle:
            each.close()


async def _answered(port: int) -> bool:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"http://127.0.0.1:{port}/")).status_code == 200


async def _trickle(port: int, head: bytes) -> None:
    """Send a line now and then, until the other side has had enough."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = head.startswith(b"POST")
    writer.write(head + (b"Content-Length: 100000\r\n\r\n" if body else b""))
    hung_up = asyncio.create_task(reader.read())
    try:
        while not hung_up.done():
            writer.write(b"x" if body else b"X-Slow: 1\r\n" if head else b"")
            await asyncio.sleep(0.05)
        await hung_up
    except ConnectionError:
        return
    finally:
        writer.close()
