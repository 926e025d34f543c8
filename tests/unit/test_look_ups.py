"""Each optional read of Torrentino, with each bad answer: missing, said once, asked for later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest
from structlog.testing import capture_logs

from shared.errors import DependencyDown
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.look_ups import MISSING, LookUps

HASH = "a" * 40
GOOD: dict[str, object] = {
    "/audit": {"events": [{"data": {"input_path": "/downloads/x"}}]},
    f"/catalog/{HASH}": {"files": [{"path": "x.flac", "size_bytes": 5}]},
    "/pipeline/status": {"running": True, "converting_tickets": ["t"], "placing_tickets": []},
    "/orchestrator/status": {"available": True, "running": False},
    "/searcher/status": {"configured": True, "available": True},
    "/torrents/status": {"configured": False},
}
HTML = {"content-type": "text/html"}
JSON = {"content-type": "application/json"}


def hangs() -> httpx.Response:
    raise httpx.ReadTimeout("no answer")


BAD: dict[str, Callable[[], httpx.Response]] = {
    "404 of a proxy": lambda: httpx.Response(404, text="<h1>Not Found</h1>", headers=HTML),
    "a page": lambda: httpx.Response(200, text="<!doctype html>", headers=HTML),
    "500": lambda: httpx.Response(500, json={"error": "Database error"}),
    "502": lambda: httpx.Response(502, text="Bad Gateway", headers=HTML),
    "broken JSON": lambda: httpx.Response(200, content=b'{"events": [', headers=JSON),
    "another shape": lambda: httpx.Response(200, json=["no object"]),
    "nothing": hangs,
}
ASKS: dict[str, tuple[Callable[[LookUps], Awaitable[object]], object]] = {
    "audit": (lambda it: it.conversion_input("t"), "/downloads/x"),
    "catalog": (lambda it: it.catalog_files(HASH), [("x.flac", 5)]),
    "pipeline": (lambda it: it.pipeline(), frozenset({"t"})),
    "orchestrator": (lambda it: it.orchestrator_runs(), False),
    "configuration": (lambda it: it.lacks(), "torrent client"),
}


class Server:
    """Answers well, or badly."""

    def __init__(self) -> None:
        self.bad: Callable[[], httpx.Response] | None = None
        self.asked = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if self.bad is not None:
            return self.bad()
        return httpx.Response(200, json=GOOD[request.url.path.removeprefix("/api/v1")])


async def no_sleep(_: float) -> None:
    """The pauses between repetitions of a GET."""


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", ASKS)
async def test_missing_is_said_once_and_asked_for_later(name: str, bad: str) -> None:
    """Nothing is raised; while its pause lasts it is not asked; what comes back is said, too."""
    ask, good = ASKS[name]
    server, now, told = Server(), [0.0], list[str | None]()
    client = TorrentinoClient(
        base_url="http://torrentino/api/v1",
        api_key=None,
        transport=httpx.MockTransport(server),
        sleep=no_sleep,
    )
    it = LookUps(client, now=lambda: now[0])
    it.tell = told.append
    try:
        assert await ask(it) == good
        server.bad = BAD[bad]
        with capture_logs() as logs:
            assert await ask(it) is MISSING
            asked = server.asked
            assert await ask(it) is MISSING
            assert server.asked == asked, "it was asked during its pause"
            now[0] += 11
            assert await ask(it) is MISSING
            assert server.asked > asked
            now[0] += 30
            server.bad = None
            assert await ask(it) == good
    finally:
        await client.close()
    said = [each["event"] for each in logs]
    assert said == ["look_up_missing", "look_up_back"]
    first, last = told
    assert name in str(first)
    assert last is None


async def test_no_answer_is_waited_for_no_longer_than_a_moment() -> None:
    """The deadline is its own, shorter than that of required reads; of the loop's time."""
    asked = asyncio.Event()

    class Hanging:
        async def pipeline(self) -> frozenset[str] | None:
            asked.set()
            never: asyncio.Future[frozenset[str]] = asyncio.get_running_loop().create_future()
            return await never

    loop = asyncio.get_running_loop()
    it = LookUps(Hanging())  # type: ignore[arg-type]
    asking = asyncio.create_task(it.pipeline())
    await asked.wait()
    began = loop.time()
    loop.time = lambda: began + 4  # type: ignore[method-assign]
    assert await asking is MISSING


async def test_what_is_missing_for_weeks_stays_missing() -> None:
    """The pause has grown to its longest long before; counting on breaks nothing."""
    now = [0.0]

    class Away:
        async def pipeline(self) -> frozenset[str] | None:
            raise DependencyDown("torrentino", "no such route")

    it = LookUps(Away(), now=lambda: now[0])  # type: ignore[arg-type]
    for _ in range(1100):
        assert await it.pipeline() is MISSING
        now[0] += 601
