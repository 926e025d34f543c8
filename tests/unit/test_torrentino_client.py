"""The Torrentino client against answers that we write ourselves, byte by byte."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from shared.errors import (
    AttemptFailed,
    Conflict,
    DependencyDown,
    DownloadsError,
    ErrorType,
    InvalidRequest,
    Misconfigured,
    OutcomeUnknown,
)
from shared.torrentino import http as http_module
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import RemoteState, TicketRequest

BASE = "http://torrentino.test:8080/api/v1"
HASH = "0123456789abcdef0123456789abcdef01234567"
REQUEST = TicketRequest(
    description="Radiohead Paranoid Android",
    artist="Radiohead",
    title="Paranoid Android",
    dest_path="/media/incoming/x",
    priority=100,
)

Handler = Callable[[httpx.Request], httpx.Response]


def ticket_json(ticket_id: str = "t1", **changes: Any) -> dict[str, Any]:
    return {
        "id": ticket_id,
        "created_at": "2026-01-05T09:23:20.123456789+00:00",
        "created_by": "anonymous",
        "state": {"type": "pending"},
        "priority": 100,
        "query_context": {"tags": [], "description": ""},
        "dest_path": f"/media/incoming/{ticket_id}",
        "updated_at": "2026-01-05T09:23:21.123456789+00:00",
    } | changes


def page_json(ids: list[str], total: int) -> dict[str, Any]:
    return {"tickets": [ticket_json(i) for i in ids], "total": total, "limit": 2, "offset": 0}


def error(status: int, text: str = "oops") -> httpx.Response:
    return httpx.Response(status, json={"error": text})


class Sleeps(list[float]):
    """Remembers how long it was asked to sleep, and does not."""

    async def __call__(self, delay_s: float) -> None:
        self.append(delay_s)


@asynccontextmanager
async def client_of(
    handler: Handler, *, api_key: str | None = None, sleeps: Sleeps | None = None
) -> AsyncIterator[TorrentinoClient]:
    client = TorrentinoClient(
        base_url=BASE,
        api_key=api_key,
        transport=httpx.MockTransport(handler),
        sleep=sleeps if sleeps is not None else Sleeps(),
    )
    try:
        yield client
    finally:
        await client.close()


def always(response: httpx.Response) -> Handler:
    # A response can be read once, so each call gets its own.
    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(
            response.status_code, content=response.content, headers=response.headers
        )

    return handler


def raising(exc: Exception) -> Handler:
    def handler(_: httpx.Request) -> httpx.Response:
        raise exc

    return handler


# --- what is sent


async def test_create_sends_exactly_the_documented_json() -> None:
    """No output constraints, no ids in tags, and the artist only when there is one."""
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(201, json=ticket_json())

    async with client_of(handler, api_key="k3y") as client:
        ticket = await client.create(REQUEST)
    assert ticket.id == "t1"
    (request,) = requests
    assert (request.method, str(request.url)) == ("POST", f"{BASE}/tickets")
    assert request.headers["authorization"] == "Bearer k3y"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == {
        "priority": 100,
        "query_context": {
            "tags": ["music"],
            "description": "Radiohead Paranoid Android",
            "expected": {"type": "track", "artist": "Radiohead", "title": "Paranoid Android"},
        },
        "dest_path": "/media/incoming/x",
    }


@pytest.mark.parametrize("ticket_id", ["a/b", "../health", "a?b=c#d", "ü %41"])
async def test_ticket_ids_are_one_segment_of_the_path(ticket_id: str) -> None:
    """An id from outside cannot reach another route."""
    paths: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path)
        return error(404, "Ticket not found")

    async with client_of(handler) as client:
        assert await client.get(ticket_id) is None
    (path,) = paths
    assert path.startswith(b"/api/v1/tickets/")
    assert path.count(b"/") == 4
    assert b"?" not in path


@pytest.mark.parametrize("ticket_id", ["", ".", ".."])
async def test_ids_that_would_change_the_route_are_refused(ticket_id: str) -> None:
    """`/tickets/` answers the dashboard, `/tickets/..` something else again."""
    async with client_of(always(error(500))) as client:
        with pytest.raises(InvalidRequest):
            await client.get(ticket_id)


@pytest.mark.parametrize("info_hash", ["all", "", "../tickets", f"{HASH}|{HASH}"])
async def test_only_one_torrent_can_be_removed(info_hash: str) -> None:
    """qBittorrent takes "all" for every torrent it has."""
    async with client_of(always(httpx.Response(200, json={}))) as client:
        with pytest.raises(InvalidRequest):
            await client.remove_torrent(info_hash, delete_files=True)


async def test_bodiless_calls_send_no_content_type() -> None:
    """Torrentino answers 400 to a JSON content type with nothing behind it."""
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json=ticket_json())

    async with client_of(handler) as client:
        await client.retry("t1")
        await client.remove_torrent(HASH, delete_files=True)
        await client.cancel("t1", reason="why")
    assert [r.headers.get("content-type") for r in requests] == [None, None, "application/json"]
    assert requests[1].url.query == b"delete_files=true"
    assert json.loads(requests[2].content) == {"reason": "why"}


@pytest.mark.parametrize("base_url", ["", "torrentino:8080", "ftp://x/", "http://", "/api/v1"])
def test_an_unusable_url_names_its_variable(base_url: str) -> None:
    """The start of a service stops with a line that says what to change."""
    with pytest.raises(Misconfigured, match="TORRENTINO_URL"):
        TorrentinoClient(base_url=base_url, api_key=None)


@pytest.mark.parametrize("api_key", ["ключ", "key\n", " key"])
def test_an_unusable_key_names_its_variable_and_not_its_value(api_key: str) -> None:
    """A key read from a file often ends in a line break."""
    with pytest.raises(Misconfigured, match="TORRENTINO_API_KEY") as caught:
        TorrentinoClient(base_url=BASE, api_key=api_key)
    assert api_key.strip() not in str(caught.value).split()


# --- what comes back: the two tables of `answers`

HTML = httpx.Response(200, html="<!doctype html>")
NOT_SENT = [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), httpx.PoolTimeout("busy")]
MAYBE_SENT = [
    httpx.ReadTimeout("slow"),
    httpx.WriteTimeout("slow"),
    httpx.ReadError("reset"),
    httpx.WriteError("reset"),
    httpx.RemoteProtocolError("Server disconnected without sending a response."),
]
DOWN, UNSETTLED, SETTLED, SETTING = "down", "unsettled", "settled", "setting"


def meaning(exc: DownloadsError) -> str:
    match exc:
        case OutcomeUnknown(settled=settled):
            return SETTLED if settled else UNSETTLED
        case DependencyDown():
            return DOWN
        case Misconfigured():
            return SETTING
        case _:
            return type(exc).__name__


EFFECT_TABLE = [
    *[(raising(exc), DOWN) for exc in NOT_SENT],
    *[(raising(exc), UNSETTLED) for exc in MAYBE_SENT],
    (always(httpx.Response(401)), SETTING),
    (always(httpx.Response(403, text="no")), SETTING),
    (always(httpx.Response(404, html="<h1>Not found</h1>")), SETTING),
    (always(httpx.Response(405)), SETTING),
    (always(httpx.Response(307, headers={"location": "https://elsewhere/"})), SETTING),
    (always(httpx.Response(408)), DOWN),
    (always(httpx.Response(429)), DOWN),
    (always(error(500, "Database error: database is locked")), SETTLED),
    (always(httpx.Response(500)), UNSETTLED),
    (always(httpx.Response(502, html="Bad Gateway")), UNSETTLED),
    (always(error(503, "Torrent client not configured")), DOWN),
    (always(httpx.Response(503, html="Service Temporarily Unavailable")), DOWN),
    (
        always(
            httpx.Response(503, text="upstream connect error or disconnect/reset before headers")
        ),
        UNSETTLED,
    ),
    (always(httpx.Response(504, html="Gateway Time-out")), UNSETTLED),
    (always(HTML), SETTING),
    (always(httpx.Response(201, html="?")), SETTLED),
    (always(httpx.Response(201, json={"no": "ticket"})), SETTLED),
    (always(httpx.Response(201, json=[])), SETTLED),
    (always(httpx.Response(201, text="{", headers={"content-type": "application/json"})), SETTLED),
]


@pytest.mark.parametrize(("handler", "expected"), EFFECT_TABLE)
async def test_effects_are_sorted_by_whether_they_can_have_happened(
    handler: Handler, expected: str
) -> None:
    """What may have been done is never called "down", so that no caller repeats it blindly."""
    sleeps = Sleeps()
    async with client_of(handler, sleeps=sleeps) as client:
        for call in (
            client.create(REQUEST),
            client.cancel("t1", reason=""),
            client.approve("t1"),
        ):
            with pytest.raises(DownloadsError) as caught:
                await call
            assert meaning(caught.value) == expected
    assert sleeps == [], "an effect is never repeated by the client"


READ_TABLE = [
    *[(raising(exc), DOWN) for exc in NOT_SENT + MAYBE_SENT],
    (always(httpx.Response(401)), SETTING),
    (always(httpx.Response(404, html="<h1>Not found</h1>")), SETTING),
    (always(httpx.Response(404)), SETTING),
    (always(httpx.Response(302, headers={"location": "https://elsewhere/"})), SETTING),
    (always(httpx.Response(400, text="Failed to deserialize query string")), SETTING),
    (always(httpx.Response(408)), DOWN),
    (always(httpx.Response(429)), DOWN),
    (always(error(500)), DOWN),
    (always(httpx.Response(500)), DOWN),
    (always(httpx.Response(502, html="Bad Gateway")), DOWN),
    (always(httpx.Response(503)), DOWN),
    (always(httpx.Response(504)), DOWN),
    (always(HTML), SETTING),
    (always(httpx.Response(200, json=[])), SETTING),
    (always(httpx.Response(200, json={"id": 7, "tickets": 7})), SETTING),
    (always(httpx.Response(200, text="{", headers={"content-type": "application/json"})), SETTING),
    (
        always(
            httpx.Response(200, text="[" * 200_000, headers={"content-type": "application/json"})
        ),
        SETTING,
    ),
]


@pytest.mark.parametrize(("handler", "expected"), READ_TABLE)
async def test_reads_say_wait_or_change_a_setting(handler: Handler, expected: str) -> None:
    """Never "no such ticket", which would make the caller create another."""
    async with client_of(handler) as client:
        with pytest.raises(DownloadsError) as caught:
            await client.get("t1")
        assert meaning(caught.value) == expected
        with pytest.raises(DownloadsError) as caught:
            await client.find_by_dest_paths(["/x"])
        assert meaning(caught.value) == expected


async def test_a_refused_key_is_named() -> None:
    """The 401 of Torrentino has an empty body, so the message is ours."""
    async with client_of(always(httpx.Response(401)), api_key="s3cret") as client:
        with pytest.raises(
            Misconfigured, match="TORRENTINO_API_KEY is refused \\(401\\)"
        ) as caught:
            await client.health()
    assert "s3cret" not in str(caught.value)


async def test_the_dashboard_is_recognised() -> None:
    """An unknown GET route below the API answers 200 and HTML."""
    async with client_of(always(HTML)) as client:
        with pytest.raises(Misconfigured, match="answered HTML: is TORRENTINO_URL the API base"):
            await client.health()


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_a_rejected_request_ends_the_attempt(status: int) -> None:
    """The text of the answer is kept, without keys and bounded."""
    body = "Failed to deserialize: apikey=abcdef " + "x" * 5_000
    async with client_of(always(httpx.Response(status, text=body))) as client:
        with pytest.raises(AttemptFailed) as caught:
            await client.create(REQUEST)
    assert caught.value.error_type is ErrorType.REJECTED
    assert "abcdef" not in caught.value.message
    assert len(caught.value.message) < 600


async def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded whatever the server sends."""
    monkeypatch.setattr(http_module, "MAX_BODY_BYTES", 1_000)
    async with client_of(always(httpx.Response(200, json="x" * 1_000))) as client:
        with pytest.raises(Misconfigured, match="more than 1000 bytes"):
            await client.get("t1")
        with pytest.raises(OutcomeUnknown):
            await client.create(REQUEST)


# --- reading again


@pytest.mark.parametrize(
    "failure", [error(500, "Database error: database is locked"), httpx.ReadError("reset")]
)
async def test_reads_outlast_what_passes_by_itself(failure: httpx.Response | Exception) -> None:
    """A locked database and a cut connection are tried again three times, each after a pause."""
    answers: list[Handler] = [
        raising(failure) if isinstance(failure, Exception) else always(failure)
    ] * 3 + [always(httpx.Response(200, json=ticket_json()))]
    sleeps = Sleeps()

    def handler(request: httpx.Request) -> httpx.Response:
        return answers.pop(0)(request)

    async with client_of(handler, sleeps=sleeps) as client:
        ticket = await client.get("t1")
    assert ticket is not None
    assert len(sleeps) == 3
    assert all(0.05 <= delay_s <= 0.4 for delay_s in sleeps)


async def test_reads_give_up_after_three_repetitions() -> None:
    """A database that stays locked is a server that is down."""
    calls: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(str(request.url))
        return error(500, "Database error: database is locked")

    async with client_of(handler) as client:
        with pytest.raises(DependencyDown, match="locked"):
            await client.get("t1")
    assert len(calls) == 4


async def test_a_timed_out_read_is_not_repeated() -> None:
    """It has used up the caller's patience already."""
    sleeps = Sleeps()
    async with client_of(raising(httpx.ReadTimeout("slow")), sleeps=sleeps) as client:
        with pytest.raises(DependencyDown):
            await client.get("t1")
    assert sleeps == []


# --- lists


async def test_list_reads_all_pages_and_names_the_state() -> None:
    """Offsets grow by what came, not by what was asked: the server clamps the limit."""
    queries: list[dict[str, str]] = []
    pages = [page_json(["a", "b"], 5), page_json(["c", "d"], 5), page_json(["e"], 5)]

    def handler(request: httpx.Request) -> httpx.Response:
        queries.append(dict(request.url.params))
        return httpx.Response(200, json=pages.pop(0))

    async with client_of(handler) as client:
        assert [t.id async for t in client.list(state="pending")] == ["a", "b", "c", "d", "e"]
    assert [q["offset"] for q in queries] == ["0", "2", "4"]
    assert {(q["limit"], q["state"]) for q in queries} == {("1000", "pending")}


async def test_list_tolerates_tickets_that_move() -> None:
    """One seen twice is yielded once; when the total shrinks, what shifted back is found."""
    live = ["a", "b", "c", "d"]
    seen_offsets: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        offset = int(request.url.params["offset"])
        seen_offsets.append(offset)
        page = page_json(live[offset : offset + 2], len(live))
        if offset == 0 and "a" in live:
            # "a" is deleted and everything behind it moves up after the first page was read.
            live.remove("a")
        return httpx.Response(200, json=page)

    async with client_of(handler) as client:
        assert [t.id async for t in client.list(page_size=2)] == ["a", "b", "d", "c"]
    assert seen_offsets == [0, 2, 1]


async def test_list_ends_on_an_empty_page() -> None:
    """Page and total are two queries, so the total may promise what is not there."""
    pages = [page_json(["a"], 9), page_json([], 9)]
    async with client_of(lambda _: httpx.Response(200, json=pages.pop(0))) as client:
        assert [t.id async for t in client.list()] == ["a"]


async def test_list_asks_for_less_when_the_answer_is_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A few huge tickets of other people must not keep us from ours."""
    monkeypatch.setattr(http_module, "MAX_BODY_BYTES", 900)
    live = [str(i) for i in range(5)]

    def handler(request: httpx.Request) -> httpx.Response:
        offset, limit = (int(request.url.params[name]) for name in ("offset", "limit"))
        return httpx.Response(200, json=page_json(live[offset : offset + limit], 5))

    async with client_of(handler) as client:
        assert [t.id async for t in client.list(page_size=1000)] == live


async def test_list_is_bounded() -> None:
    """A list cut short would look as if a ticket did not exist, so it is an error instead."""
    counter = iter(range(100))

    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=page_json([str(next(counter))], 1_000))

    async with client_of(handler) as client:
        with pytest.raises(Misconfigured, match="more than 3 pages"):
            [t async for t in client.list(max_pages=3)]


async def test_find_returns_every_ticket_of_a_destination() -> None:
    """Two tickets with one destination are both told; other people's tickets are not."""
    page = page_json(["a", "b", "c"], 3)
    page["tickets"][2]["dest_path"] = "/media/incoming/a"
    async with client_of(always(httpx.Response(200, json=page))) as client:
        found = await client.find_by_dest_paths({"/media/incoming/a", "/media/incoming/zzz"})
        assert await client.find_by_dest_paths([]) == {}
    assert {path: [t.id for t in tickets] for path, tickets in found.items()} == {
        "/media/incoming/a": ["a", "c"]
    }


# --- decisions


async def test_cancelling_what_has_ended_returns_it() -> None:
    """A 409 is no failure: the caller wanted it ended."""

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            return error(409, "Cannot cancel ticket: current state is completed")
        return httpx.Response(200, json=ticket_json(state={"type": "completed"}))

    async with client_of(handler) as client:
        ticket = await client.cancel("t1", reason="withdrawn")
    assert ticket is not None
    assert ticket.state == RemoteState.COMPLETED


async def test_what_is_not_there_is_none() -> None:
    """Only Torrentino's own 404 counts."""
    async with client_of(always(error(404, "Ticket not found: t1"))) as client:
        assert await client.get("t1") is None
        assert await client.cancel("t1", reason="") is None
        assert await client.approve("t1") is None
        assert await client.reject("t1", reason="") is None
        assert await client.retry("t1") is None
        await client.remove_torrent(HASH, delete_files=False)


async def test_decisions_on_a_moved_ticket_conflict() -> None:
    """Another client has decided, or Torrentino has moved it."""
    text = "Cannot approve ticket: current state is pending"
    async with client_of(always(error(409, text))) as client:
        for call in (
            client.approve("t1"),
            client.reject("t1", reason="no"),
            client.retry("t1"),
        ):
            with pytest.raises(Conflict, match="current state is pending"):
                await call


async def test_a_wrong_candidate_is_the_callers_fault() -> None:
    """The index comes from a person."""
    async with client_of(always(error(400, "Invalid candidate index: 7"))) as client:
        with pytest.raises(InvalidRequest, match="index: 7"):
            await client.approve("t1", candidate_idx=7)


async def test_health_and_orchestrator() -> None:
    """Health says only that the API answers; the orchestrator's counts come as they are."""
    status = {"available": False, "running": False, "pending_count": 3}
    answers = [{"status": "ok"}, {"status": "draining"}, status]
    async with client_of(lambda _: httpx.Response(200, json=answers.pop(0))) as client:
        await client.health()
        with pytest.raises(DependencyDown, match="draining"):
            await client.health()
        assert await client.orchestrator() == status


# --- real sockets
