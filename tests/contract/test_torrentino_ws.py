"""The stream of hints against a WebSocket server that we drive."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field
from http import HTTPStatus

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from shared.backoff import Backoff
from shared.clock import SystemClock
from shared.errors import Misconfigured
from shared.torrentino.ws import RECONNECT, ticket_hints, websocket_url

Session = Callable[[ServerConnection], Awaitable[None]]
CALM = random.Random(7)


@dataclass(frozen=True, kw_only=True)
class Recorded(Backoff):
    """Records the pauses of a back-off and makes none; `enough` is set after so many of them."""

    most: int = 1
    pauses_s: list[float] = field(default_factory=list)
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    def pause_s(self, earlier: int, rng: random.Random) -> float:
        self.pauses_s.append(super().pause_s(earlier, rng))
        if len(self.pauses_s) == self.most:
            self.enough.set()
        return 0.0


def recorded(most: int = 1) -> Recorded:
    return Recorded(**asdict(RECONNECT), most=most)


@asynccontextmanager
async def server_of(session: Session, *, key: str | None = None) -> AsyncIterator[str]:
    """A server whose connections run `session`; yields the base URL of its API."""

    def check(connection: ServerConnection, request: Request) -> Response | None:
        if request.path != "/api/v1/ws":
            return connection.respond(HTTPStatus.NOT_FOUND, "")
        if key is not None and request.headers.get("Authorization") != f"Bearer {key}":
            return connection.respond(HTTPStatus.UNAUTHORIZED, "")
        return None

    async with serve(session, "127.0.0.1", 0, process_request=check) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"http://127.0.0.1:{port}/api/v1"


def update(ticket_id: object, kind: str = "ticket_update") -> str:
    return json.dumps({"type": kind, "ticket_id": ticket_id, "state": "downloading"})


async def test_ids_of_changed_and_deleted_tickets_are_hinted() -> None:
    """Everything else is ignored: other types, other shapes, broken and binary frames."""
    noise: list[str | bytes] = [
        update("p", "pipeline_progress"),
        update("f", "from_the_future"),
        json.dumps({"type": "ticket_update"}),
        update(""),
        update(7),
        update("x" * 1_000),
        "[]",
        "{",
        "[" * 100_000,
        b"\xff\xfe",
    ]

    async def session(connection: ServerConnection) -> None:
        for message in [update("a"), *noise, update("b", "ticket_deleted")]:
            await connection.send(message)
        await connection.wait_closed()

    async with server_of(session) as base_url, aclosing(ticket_hints(base_url, None)) as hints:
        assert [await anext(hints) for _ in range(3)] == ["", "a", "b"]


async def test_every_reconnection_asks_for_a_poll_of_everything() -> None:
    """Changes while there was no connection are not hinted later."""
    backoff = recorded()

    async def session(connection: ServerConnection) -> None:
        await connection.send(update("a"))
        # Cut without a closing handshake, as a crash does.
        connection.transport.abort() if not backoff.pauses_s else await connection.close()

    async with (
        server_of(session) as base_url,
        aclosing(ticket_hints(base_url, None, backoff=backoff)) as hints,
    ):
        seen = [await anext(hints) for _ in range(5)]
    assert seen.count("") >= 2
    assert set(seen) <= {"", "a"}
    assert len(backoff.pauses_s) >= 2


async def test_a_server_that_is_down_is_tried_at_growing_distances(unused_tcp_port: int) -> None:
    """At most 30 s, with jitter, and one line in the log however long it lasts."""
    backoff = recorded(12)

    async def listen() -> None:
        base_url = f"http://127.0.0.1:{unused_tcp_port}"
        async for _ in ticket_hints(base_url, None, backoff=backoff, rng=CALM):
            pytest.fail("no server listens there")

    with capture_logs() as logs:
        task = asyncio.create_task(listen())
        await backoff.enough.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert all(
        min(0.5 * 2**n, 30) / 2 <= pause_s <= min(0.5 * 2**n, 30)
        for n, pause_s in enumerate(backoff.pauses_s)
    )
    assert [entry["event"] for entry in logs] == ["torrentino_hints_lost"]


async def test_a_refused_key_is_logged_once_and_tried_again() -> None:
    """An operator may be changing the key at the other end."""
    backoff = recorded(3)

    async def session(connection: ServerConnection) -> None:
        pytest.fail("the handshake must fail")

    async with server_of(session, key="right") as base_url:
        with capture_logs() as logs:
            hints = ticket_hints(base_url, "wrong", backoff=backoff)
            task = asyncio.ensure_future(anext(hints))
            await backoff.enough.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    (entry,) = logs
    assert entry["problem"] == "TORRENTINO_API_KEY is refused (401)"
    assert "wrong" not in str(entry)


async def test_the_key_is_sent_with_the_handshake() -> None:
    """The WebSocket sits behind the same key as the rest of the API."""

    async def session(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with (
        server_of(session, key="right") as base_url,
        aclosing(ticket_hints(base_url, "right")) as hints,
    ):
        assert await anext(hints) == ""


async def test_a_redirect_is_not_followed() -> None:
    """The key goes to the host of TORRENTINO_URL only; the answer is a problem like another."""
    backoff = recorded(2)
    requests: list[str] = []

    async def session(connection: ServerConnection) -> None:
        pytest.fail("the handshake must fail")

    def elsewhere(connection: ServerConnection, request: Request) -> Response:
        requests.append(request.path)
        response = connection.respond(HTTPStatus.FOUND, "")
        response.headers["Location"] = "/elsewhere"
        return response

    async with serve(session, "127.0.0.1", 0, process_request=elsewhere) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with capture_logs() as logs:
            hints = ticket_hints(f"http://127.0.0.1:{port}/api/v1", None, backoff=backoff)
            task = asyncio.ensure_future(anext(hints))
            await backoff.enough.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert [entry["problem"] for entry in logs] == ["the handshake was answered with 302"]
    assert set(requests) == {"/api/v1/ws"}


async def test_a_caller_that_stops_closes_the_connection() -> None:
    """Torrentino ends only when all its connections are closed."""
    closed = asyncio.Event()

    async def session(connection: ServerConnection) -> None:
        await connection.wait_closed()
        closed.set()

    async with server_of(session) as base_url:
        async with aclosing(ticket_hints(base_url, None)) as hints:
            await anext(hints)
        async with asyncio.timeout(1):
            await closed.wait()


class LongAgo(SystemClock):
    """Each reading is a minute later."""

    def __init__(self) -> None:
        self.s = 0.0

    def monotonic(self) -> float:
        self.s += 60
        return self.s


@pytest.mark.parametrize(("lived_long", "grows"), [(False, True), (True, False)])
async def test_only_a_useful_connection_resets_the_back_off(
    *, lived_long: bool, grows: bool
) -> None:
    """Each costs the caller a poll of everything, so one that is cut at once is a failure."""
    backoff = recorded()

    async def session(connection: ServerConnection) -> None:
        await connection.close()

    clock = LongAgo() if lived_long else SystemClock()
    async with (
        server_of(session) as base_url,
        aclosing(ticket_hints(base_url, None, backoff=backoff, clock=clock)) as hints,
    ):
        assert [await anext(hints) for _ in range(6)] == [""] * 6
    assert (max(backoff.pauses_s) > 2) == grows


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://host:8080/api/v1", "ws://host:8080/api/v1/ws"),
        ("https://host/api/v1/", "wss://host/api/v1/ws"),
    ],
)
def test_websocket_url(base_url: str, url: str) -> None:
    """Derived from TORRENTINO_URL, so that there is one setting."""
    assert websocket_url(base_url) == url


async def test_an_unusable_url_is_an_error_at_once() -> None:
    """Trying again cannot help."""
    with pytest.raises(Misconfigured, match="TORRENTINO_URL"):
        await anext(ticket_hints("nonsense", None))
