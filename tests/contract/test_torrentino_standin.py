"""The real server's own cases (reference, section 8) over real sockets.

`TORRENTINO_CONFORMANCE_URL=http://host:port/api/v1` points them at another server, with
`[auth] method = "none"` and `[orchestrator] enabled = false`: ALL of its tickets are deleted. By
default they run against the stand-in.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from datetime import datetime

import httpx
import pytest

from services.local.torrentino import SongList, Standin, StandinConfig
from tests.support.standin_bodies import CONTEXT, EXPECTATIONS, WRONG_SHAPES
from tests.support.standin_helpers import JSON, body, client, create, eventually

NOWHERE = "/tickets/00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def api() -> AsyncIterator[httpx.AsyncClient]:
    url = os.environ.get("TORRENTINO_CONFORMANCE_URL")
    if url:
        async with client(url) as made:
            await delete_all(made)
            yield made
        return
    config = StandinConfig(orchestrator=False)
    async with Standin(config, SongList([])) as standin, client(standin.url) as made:
        yield made


async def delete_all(api: httpx.AsyncClient) -> None:
    while tickets := (await api.get("/tickets")).json()["tickets"]:
        for ticket in tickets:
            await api.post(f"/tickets/{ticket['id']}/delete?confirm=true")


def is_text(answer: httpx.Response) -> bool:
    return answer.headers["content-type"].startswith("text/plain")


async def test_create_ticket(api: httpx.AsyncClient) -> None:
    """Case 1: a 201 with the whole ticket, its fields in order, `expected` absent."""
    ticket = await create(api, body(priority=100))
    assert list(ticket) == [
        "id",
        "created_at",
        "created_by",
        "state",
        "priority",
        "query_context",
        "dest_path",
        "updated_at",
    ]
    assert ticket["state"] == {"type": "pending"}
    assert (ticket["priority"], ticket["created_by"]) == (100, "anonymous")
    assert ticket["query_context"] == body()["query_context"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{9}\+00:00", ticket["created_at"])
    assert datetime.fromisoformat(ticket["updated_at"]).tzinfo is not None


async def test_get_ticket(api: httpx.AsyncClient) -> None:
    """Case 2."""
    ticket = await create(api, body())
    assert (await api.get(f"/tickets/{ticket['id']}")).json() == ticket
    missing = await api.get(NOWHERE)
    assert missing.status_code == 404
    assert missing.json() == {"error": f"Ticket not found: {NOWHERE.rpartition('/')[2]}"}


async def test_list_order(api: httpx.AsyncClient) -> None:
    """Case 3: priority first, then age."""
    for priority, name in ((0, "a"), (10, "b"), (20, "c"), (10, "d")):
        await create(api, body(name, priority=priority))
    page = (await api.get("/tickets")).json()
    assert [each["query_context"]["description"] for each in page["tickets"]] == list("cbda")
    assert (page["total"], page["limit"], page["offset"]) == (4, 100, 0)


async def test_list_pages(api: httpx.AsyncClient) -> None:
    """Case 4."""
    made = {(await create(api, body()))["id"] for _ in range(5)}
    seen: list[str] = []
    for offset, count in ((0, 2), (2, 2), (4, 1)):
        page = (await api.get("/tickets", params={"limit": 2, "offset": offset})).json()
        assert (len(page["tickets"]), page["total"]) == (count, 5)
        assert (page["limit"], page["offset"]) == (2, offset)
        seen += [each["id"] for each in page["tickets"]]
    assert set(seen) == made


async def test_list_filters(api: httpx.AsyncClient) -> None:
    """Cases 5 and 6: filters are exact, combine, and never fail."""
    first, second, *_ = [await create(api, body()) for _ in range(4)]
    await api.delete(f"/tickets/{first['id']}")
    totals = {
        "state=pending": 3,
        "state=cancelled": 1,
        "state=completed": 0,
        "state=": 0,
        "state=nonsense": 0,
        "created_by=anonymous": 4,
        "created_by=nobody": 0,
        "state=cancelled&created_by=anonymous": 1,
        "unheard_of=1": 4,
    }
    for query, total in totals.items():
        page = (await api.get(f"/tickets?{query}")).json()
        assert (query, page["total"], len(page["tickets"])) == (query, total, total)
    page = (await api.get("/tickets?state=pending&created_by=anonymous&limit=2&offset=1")).json()
    assert (page["total"], len(page["tickets"])) == (3, 2)
    assert second["id"] not in [each["id"] for each in page["tickets"]]


@pytest.mark.parametrize(
    ("query", "limit", "offset"),
    [
        ("limit=0", 1, 0),
        ("limit=-5", 1, 0),
        ("limit=1000000", 1000, 0),
        ("offset=-1", 100, 0),
        ("offset=1000000", 100, 1000000),
    ],
)
async def test_list_clamps(api: httpx.AsyncClient, query: str, limit: int, offset: int) -> None:
    """Case 7: out of range is brought into range, and said so."""
    page = (await api.get(f"/tickets?{query}")).json()
    assert (page["limit"], page["offset"]) == (limit, offset)


@pytest.mark.parametrize("query", ["limit=NaN", "offset=abc", "limit=1.5", "limit="])
async def test_list_refuses_words(api: httpx.AsyncClient, query: str) -> None:
    """Case 7: what is no integer is a 400 in plain text."""
    answer = await api.get(f"/tickets?{query}")
    assert answer.status_code == 400
    assert is_text(answer)


async def test_cancel(api: httpx.AsyncClient) -> None:
    """Case 8."""
    ticket = await create(api, body())
    path = f"/tickets/{ticket['id']}"
    answer = await api.request("DELETE", path, json={"reason": "Testing cancellation"})
    state = answer.json()["state"]
    assert (answer.status_code, state["type"]) == (200, "cancelled")
    assert (state["reason"], state["cancelled_by"]) == ("Testing cancellation", "anonymous")
    assert state["cancelled_at"].endswith("Z")
    again = await api.delete(path)
    assert again.status_code == 409
    assert again.json() == {"error": "Cannot cancel ticket: current state is cancelled"}
    assert (await api.delete(NOWHERE)).status_code == 404


@pytest.mark.parametrize(
    ("content_type", "content", "status"),
    [
        (None, b"", 200),
        ("application/json", b"{}", 200),
        ("application/json", b'{"reason": null}', 200),
        ("application/vnd.x+json; charset=utf-8", b"{}", 200),
        ("application/json", b"", 400),
        ("text/plain", b"{}", 415),
        ("application/json", b'{"reason": 5}', 422),
    ],
)
async def test_cancel_bodies(
    api: httpx.AsyncClient, content_type: str | None, content: bytes, status: int
) -> None:
    """Cases 8 and 10: an optional body is all there or not there at all."""
    ticket = await create(api, body())
    headers = {} if content_type is None else {"content-type": content_type}
    path = f"/tickets/{ticket['id']}"
    answer = await api.request("DELETE", path, content=content, headers=headers)
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["state"]["reason"] is None
    else:
        assert is_text(answer)


async def test_retry(api: httpx.AsyncClient) -> None:
    """Case 9."""
    path = f"/tickets/{(await create(api, body()))['id']}"
    early = await api.post(f"{path}/retry")
    assert early.status_code == 409
    assert early.json() == {"error": "Cannot retry ticket: current state is pending"}
    for _ in range(10):
        assert (await api.delete(path)).json()["state"]["type"] == "cancelled"
        retried = await api.post(f"{path}/retry", content=b"whatever")
        assert (retried.status_code, retried.json()["state"]) == (200, {"type": "pending"})
    assert (await api.post(f"{NOWHERE}/retry")).status_code == 404


@pytest.mark.parametrize("action", ["approve", "reject"])
async def test_decisions_in_the_wrong_state(api: httpx.AsyncClient, action: str) -> None:
    """Case 10."""
    path = f"/tickets/{(await create(api, body()))['id']}"
    for answer in (
        await api.post(f"{path}/{action}"),
        await api.post(f"{path}/{action}", json={}),
    ):
        assert answer.status_code == 409
        assert answer.json() == {"error": f"Cannot {action} ticket: current state is pending"}
    assert (await api.post(f"{NOWHERE}/{action}")).status_code == 404


async def test_hard_delete(api: httpx.AsyncClient) -> None:
    """Case 11: confirmed in so many words, and checked before existence."""
    ticket = await create(api, body())
    path = f"/tickets/{ticket['id']}"
    for refused in (f"{path}/delete", f"{path}/delete?confirm=1", f"{NOWHERE}/delete"):
        answer = await api.post(refused)
        assert answer.status_code == 400
        assert "confirmation" in answer.json()["error"]
    assert (await api.post(f"{NOWHERE}/delete?confirm=true")).status_code == 404
    deleted = await api.post(f"{path}/delete?confirm=true")
    assert (deleted.status_code, deleted.json()) == (200, ticket)
    gone = [
        await api.get(path),
        await api.delete(path),
        await api.post(f"{path}/retry"),
        await api.post(f"{path}/approve"),
    ]
    assert [answer.status_code for answer in gone] == [404] * 4


@pytest.mark.parametrize("sent", WRONG_SHAPES)
async def test_wrong_shapes(api: httpx.AsyncClient, sent: object) -> None:
    """Case 12: JSON of another shape is a 422 in plain text."""
    answer = await api.post("/tickets", json=sent)
    assert answer.status_code == 422, answer.text
    assert is_text(answer)
    assert answer.text.startswith("Failed to deserialize the JSON body into the target type: ")


@pytest.mark.parametrize("content", [b"", b"{", b"{'a': 1}", b'{"a": NaN}', b"\xff", b'"\\ud800"'])
async def test_no_json(api: httpx.AsyncClient, content: bytes) -> None:
    """Case 12: what is not JSON is a 400 in plain text."""
    headers = {"content-type": "application/json"}
    answer = await api.post("/tickets", content=content, headers=headers)
    assert answer.status_code == 400
    assert is_text(answer)
    assert answer.text.startswith("Failed to parse the request body as JSON")


@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}])
async def test_wrong_content_type(api: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Case 12: a required body has to say that it is JSON."""
    answer = await api.post("/tickets", content=json.dumps(body()), headers=headers)
    assert answer.status_code == 415
    assert is_text(answer)


async def test_unknown_fields_are_lost(api: httpx.AsyncClient) -> None:
    """Case 12: a misspelt constraint is accepted and forgotten, without a word."""
    context = {**CONTEXT, "search_constraints": {"preferred_format": "flac"}, "extra": 1}
    ticket = await create(api, body(query_context=context, idempotency_key="k", expected={}))
    assert ticket["query_context"] == {**CONTEXT, "search_constraints": {}}
    assert "idempotency_key" not in ticket


@pytest.mark.parametrize("priority", [0, 1, 65534, 65535, None])
async def test_priorities(api: httpx.AsyncClient, priority: int | None) -> None:
    """Case 12: the whole range of 16 bits; null is absent."""
    assert (await create(api, body(priority=priority)))["priority"] == (priority or 0)


@pytest.mark.parametrize("expected", EXPECTATIONS)
async def test_full_context_is_echoed(api: httpx.AsyncClient, expected: JSON) -> None:
    """Cases 13 and 15: all that is known comes back as it was sent; nothing else is added."""
    audio = {
        "preferred_formats": ["flac", "alac"],
        "min_bitrate_kbps": 320,
        "avoid_compilations": True,
        "avoid_live": False,
    }
    context = {
        "tags": ["music"],
        "description": "x",
        "expected": expected,
        "catalog_reference": {"type": "tmdb", "id": 5, "media_type": "movie"},
        "search_constraints": {"audio": audio},
    }
    output = {"type": "audio", "format": "ogg_vorbis", "bitrate_kbps": 320}
    ticket = await create(api, body(query_context=context, output_constraints=output))
    assert ticket["query_context"] == context
    assert ticket["output_constraints"] == output


@pytest.mark.parametrize(
    "text",
    [
        "Björk - Jóga 日本語 🎵 \u202e",
        "'; DROP TABLE tickets; --",
        '{"state":{"type":"completed"}}\\u0000\n\t"',
        "../../etc/passwd",
        "",
    ],
)
async def test_strings_round_trip(api: httpx.AsyncClient, text: str) -> None:
    """Case 14: any text is kept unchanged, wherever it stands."""
    context = {"tags": [text], "description": text}
    made = await create(api, body(query_context=context, dest_path=text))
    ticket = (await api.get(f"/tickets/{made['id']}")).json()
    assert ticket["query_context"] == context
    assert ticket["dest_path"] == text


async def test_sizes(api: httpx.AsyncClient) -> None:
    """Case 14: a megabyte is taken, more than two are not."""
    assert len((await create(api, body("x" * 2**20)))["query_context"]["description"]) == 2**20
    huge = await api.post("/tickets", json=body("x" * 2**21))
    assert huge.status_code == 413
    assert is_text(huge)


async def test_orchestrator_unavailable(api: httpx.AsyncClient) -> None:
    """Case 16."""
    await create(api, body())
    status = (await api.get("/orchestrator/status")).json()
    assert status == {
        "available": False,
        "running": False,
        "active_downloads": 0,
        "acquiring_count": 0,
        "pending_count": 0,
        "needs_approval_count": 0,
        "downloading_count": 0,
    }
    for action in ("start", "stop"):
        answer = await api.post(f"/orchestrator/{action}")
        assert (answer.status_code, list(answer.json())) == (503, ["error"])


async def test_pipeline(api: httpx.AsyncClient) -> None:
    """Case 17, but for `/pipeline/process`."""
    missing = await api.get("/pipeline/progress/nobody")
    assert (missing.status_code, missing.json()["phase"]) == (404, "unknown")
    assert isinstance(missing.json()["error"], str)
    ticket = await create(api, body())
    waiting = (await api.get(f"/pipeline/progress/{ticket['id']}")).json()
    assert waiting == {"ticket_id": ticket["id"], "phase": "pending"}
    valid = await api.get("/pipeline/validate")
    assert valid.status_code in {200, 503}
    assert set(valid.json()) == {"valid", "ffmpeg_available", "ffprobe_available", "message"}
    status = (await api.get("/pipeline/status")).json()
    assert {"available", "running", "converting_tickets", "placing_tickets"} <= set(status)


async def test_health_and_config(api: httpx.AsyncClient) -> None:
    """Case 19."""
    assert (await api.get("/health")).json() == {"status": "ok"}
    assert (await api.get("/config")).json()["auth"] == {"method": "none"}


async def test_audit(api: httpx.AsyncClient) -> None:
    """Case 20: newest first, filtered, paged; written in its own time."""
    first, second = await create(api, body()), await create(api, body())
    await api.delete(f"/tickets/{first['id']}")
    await api.post(f"/tickets/{second['id']}/delete?confirm=true")

    async def events(query: str, count: int) -> list[JSON]:
        async def look() -> JSON | None:
            page: JSON = (await api.get(f"/audit?{query}")).json()
            return page if page["total"] == count else None

        return list((await eventually(look))["events"])

    await events(f"event_type=ticket_deleted&user_id=anonymous&ticket_id={second['id']}", 1)
    mine = await events(f"ticket_id={first['id']}", 2)
    assert [each["event_type"] for each in mine] == ["ticket_cancelled", "ticket_created"]
    assert {each["data"]["ticket_id"] for each in mine} == {first["id"]}
    assert await events(f"ticket_id={first['id']}&limit=1&offset=1", 2) == mine[1:]
    created = (await api.get("/audit?event_type=ticket_created&limit=2")).json()
    assert [each["ticket_id"] for each in created["events"]] == [second["id"], first["id"]]
    assert (created["limit"], created["offset"]) == (2, 0)
    assert await events("event_type=nothing", 0) == []
    await events("to=2020-01-01T00:00:00%2B00:00", 0)
    await events(f"from=2020-01-01T00:00:00Z&ticket_id={first['id']}", 2)
    assert (await api.get("/audit?from=yesterday")).status_code == 400


async def test_unknown_routes(api: httpx.AsyncClient) -> None:
    """1.0: an unknown GET is the dashboard's page, a wrong method an empty 405."""
    for path in ("/stats", "/tickets/", "/tickets/a/b/c"):
        answer = await api.get(path)
        assert answer.status_code in {200, 404}
        if answer.status_code == 200:
            assert answer.headers["content-type"].startswith("text/html")
    wrong = await api.put("/tickets", json=body())
    assert (wrong.status_code, wrong.content) == (405, b"")
    assert set(wrong.headers["allow"].split(",")) == {"GET", "HEAD", "POST"}
    assert (await api.post("/ticket", json=body())).status_code in {404, 405}
