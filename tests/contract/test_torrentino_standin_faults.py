"""The stand-in's surface: faults on demand, authentication, the WebSocket, the metrics."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
import websockets

from services.local.torrentino import Faults, Standin
from services.local.torrentino.hub import BUFFER, Hub
from tests.support.standin_helpers import (
    AUDIO,
    JSON,
    body,
    client,
    create,
    eventually,
    listening,
    messages,
    quick,
    reaching,
    served,
    songs,
    track_body,
)

LOCKED = {"error": "Database error: database is locked"}


@pytest.mark.parametrize(
    ("count", "effect"),
    [
        ("database_locked", 0),
        ("database_locked_after_effect", 1),
        ("drop_before", 0),
        ("drop_after", 1),
    ],
)
async def test_ambiguous_creates(tmp_path: Path, count: str, effect: int) -> None:
    """A failed POST has had its effect or not, and the answer does not tell."""
    faults = Faults(only="POST /tickets")
    setattr(faults, count, 1)
    async with served(tmp_path, config=quick(orchestrator=False), faults=faults) as (standin, api):
        assert (await api.get("/tickets")).status_code == 200
        if count.startswith("drop"):
            with pytest.raises(httpx.RemoteProtocolError):
                await api.post("/tickets", json=body())
        else:
            answer = await api.post("/tickets", json=body())
            assert (answer.status_code, answer.json()) == (500, LOCKED)
        assert len(standin.tickets()) == effect
        await create(api, body())  # once only
        assert standin.requests["POST /tickets"] == 2


async def test_locked_deletes(tmp_path: Path) -> None:
    """The effect of a DELETE may be there in spite of the error; GETs are not hit by that count."""
    faults = Faults()
    async with served(tmp_path, config=quick(orchestrator=False), faults=faults) as (standin, api):
        ticket = await create(api, body())
        faults.database_locked_after_effect = 1
        assert (await api.get(f"/tickets/{ticket['id']}")).status_code == 200
        assert (await api.delete(f"/tickets/{ticket['id']}")).json() == LOCKED
        assert (await api.get("/tickets?state=cancelled")).json()["total"] == 1
        faults.database_locked = 2
        assert (await api.get("/orchestrator/status")).status_code == 200
        assert [(await api.get("/tickets")).status_code for _ in range(3)] == [500, 500, 200]
        assert standin.requests["DELETE /tickets/{id}"] == 1


async def test_standing_faults(tmp_path: Path) -> None:
    """401 with nothing in it, a page instead of JSON, 503: each for as long as it is set."""
    async with served(tmp_path, config=quick(orchestrator=False)) as (standin, api):
        faults = standin.faults
        faults.unauthorized = True
        for path in ("/health", "/tickets"):
            answer = await api.get(path)
            assert (answer.status_code, answer.content) == (401, b"")
        faults.unauthorized, faults.html = False, True
        for answer in (await api.get("/tickets"), await api.post("/tickets", json=body())):
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/html")
        faults.html, faults.down = False, True
        answer = await api.get("/health")
        assert (answer.status_code, list(answer.json())) == (503, ["error"])
        with pytest.raises(websockets.InvalidStatus):
            await listening(standin).__aenter__()
        faults.down = False
        assert standin.tickets() == []


async def test_a_held_answer_has_had_its_effect(tmp_path: Path) -> None:
    """A client that gives up early finds its ticket made."""
    faults = Faults(delay_s=30)
    async with served(tmp_path, config=quick(orchestrator=False), faults=faults) as (standin, api):
        with pytest.raises(httpx.ReadTimeout):
            await api.post("/tickets", json=body(), timeout=0.1)
        assert len(standin.tickets()) == 1


async def test_no_dashboard(tmp_path: Path) -> None:
    """Without a dashboard what is unknown is a 404."""
    async with served(tmp_path, config=quick(dashboard=False)) as (_, api):
        assert (await api.get("/stats")).status_code == 404
        assert (await api.post("/stats")).status_code == 404


async def test_substitutes_come_one_ticket_at_a_time(tmp_path: Path) -> None:
    """Other bytes for the first ticket, again for its retry, then the song's own."""
    broken = tmp_path / "broken.flac"
    broken.write_bytes(b"broken")
    faults = Faults(substitute={"song": [broken]})
    async with served(tmp_path, "Song", faults=faults) as (standin, api):
        delivered = []
        first = await create(api, track_body("Song", tmp_path / "d"))
        for _ in range(2):
            await reaching(api, first["id"], "completed")
            delivered.append((tmp_path / "d" / "The Band - Song.flac.converted").read_bytes())
            standin.set_state(first["id"], {"type": "pending"})
        second = await create(api, track_body("Song", tmp_path / "e"))
        await reaching(api, second["id"], "completed")
        delivered.append((tmp_path / "e" / "The Band - Song.flac.converted").read_bytes())
    assert delivered == [b"broken", b"broken", AUDIO + b"Song"]


async def test_extra_files_are_counted(tmp_path: Path) -> None:
    """What lies beside the audio is part of the stats."""
    cover = tmp_path / "cover.jpg"
    cover.write_bytes(b"jpeg")
    async with served(tmp_path, "Song", faults=Faults(extra_files={"song": [cover]})) as (_, api):
        ticket = await create(api, track_body("Song", tmp_path / "d"))
        stats = (await reaching(api, ticket["id"], "completed"))["state"]["stats"]
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "d").iterdir()}
    assert sizes == {"cover.jpg": 4, "The Band - Song.flac.converted": len(AUDIO) + 4}
    assert (stats["files_placed"], stats["final_size_bytes"]) == (2, sum(sizes.values()))


async def test_priority_decides_who_is_acquired_next(tmp_path: Path) -> None:
    """One ticket at a time, the most urgent first, then the oldest."""
    async with served(tmp_path, "a", "b", "c", "d") as (standin, api), listening(standin) as socket:
        await api.post("/orchestrator/stop")
        made = [
            (await create(api, track_body(title, tmp_path / title, priority=priority)))["id"]
            for title, priority in (("a", 1), ("b", 1), ("c", 9), ("d", 5))
        ]
        await api.post("/orchestrator/start")
        seen: list[JSON] = []
        while len({each["ticket_id"] for each in seen}) < 4:
            seen += [
                each
                for each in await messages(socket, lambda last: "state" in last)
                if each["state"] == "auto_approved"
            ]
    order = [each["ticket_id"] for each in seen]
    assert order == [made[2], made[3], made[0], made[1]]


async def test_faults_over_http(tmp_path: Path) -> None:
    """A stand-in in another process is driven beside the API, and says what it has seen."""
    async with served(tmp_path, config=quick(api_key="k3y")) as (standin, api):
        root = standin.url.removesuffix("/api/v1")
        changes = {"fates": {"SONG": "not_found"}, "drop_after": 2}
        answer = await api.post(f"{root}/_standin/faults", json=changes)
        assert answer.status_code == 200
        assert standin.faults.fates == {"song": "not_found"}
        assert standin.faults.drop_after == 2
        for wrong in ({"typo": 1}, {"drop_after": "many"}, {"fates": {"x": "typo"}}, [1]):
            assert (await api.post(f"{root}/_standin/faults", json=wrong)).status_code == 422
        assert standin.faults.fates == {"song": "not_found"}
        standin.faults.drop_after = 0
        await api.get("/tickets/some-id")
        state = (await api.get(f"{root}/_standin/state")).json()
        assert state["requests"] == {"GET /tickets/{id}": 1}


def test_slow_listeners_lose_the_oldest_messages() -> None:
    """The buffer is bounded, and no client hears of a loss."""
    hub = Hub()
    with hub.subscription() as queue:
        for number in range(BUFFER + 3):
            hub.broadcast({"number": number})
        assert json.loads(queue.get_nowait()) == {"number": 3}
    assert (hub.lag_events, hub.clients) == (3, 0)


async def test_hundreds_at_once(tmp_path: Path) -> None:
    """Three hundred tickets arrive in a few seconds."""
    titles = [f"Song {number}" for number in range(300)]
    async with served(tmp_path, *titles, config=quick(download_s=0.01)) as (_, api):
        for title in titles:
            await create(api, track_body(title, tmp_path / "in" / title))

        async def all_there() -> bool:
            page = (await api.get("/tickets?state=completed&limit=1")).json()
            return bool(page["total"] == len(titles))

        await eventually(all_there, deadline_s=60)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer k3y"}, 200),
        ({"Authorization": "bearer k3y"}, 200),
        ({"X-API-Key": "k3y"}, 200),
        ({"Authorization": "Basic k3y", "X-API-Key": "k3y"}, 200),
        ({"Authorization": "Bearer wrong", "X-API-Key": "k3y"}, 401),
        ({"Authorization": "BEARER k3y"}, 401),
        ({"Authorization": "Bearer  k3y"}, 401),
        ({"X-API-Key": "K3Y"}, 401),
        ({}, 401),
    ],
)
async def test_authentication(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    """Case 18: on every route of the API, before the body is looked at; an empty 401."""
    config = quick(api_key="k3y")
    async with Standin(config, songs(tmp_path)) as standin, client(standin.url, **headers) as api:
        for path in ("/health", "/config", "/tickets", "/tickets/x", "/torrents"):
            answer = await api.get(path)
            assert answer.status_code in ({200, 404} if status == 200 else {401}), path
            assert status == 200 or answer.content == b""
        assert (await api.post("/tickets", json={})).status_code == (422 if status == 200 else 401)
        assert (await api.get("/nowhere")).status_code == 200  # the dashboard asks no remote
        assert (await api.get(standin.url.replace("/api/v1", "/metrics"))).status_code == 200
        if status == 200:
            assert (await create(api, body()))["created_by"] == "api_key_user"
            async with listening(standin, **headers):
                pass
            return
        with pytest.raises(websockets.InvalidStatus) as refused:
            await listening(standin, **headers).__aenter__()
        assert refused.value.response.status_code == 401


async def test_the_firehose(tmp_path: Path) -> None:
    """Every client hears of every ticket from the connection on; what clients say is ignored."""
    async with served(tmp_path, config=quick(orchestrator=False)) as (standin, api):
        await create(api, body())
        async with listening(standin) as one, listening(standin) as two:
            await one.send("subscribe")
            ticket = await create(api, body())
            await api.post(f"/tickets/{ticket['id']}/delete?confirm=true")
            for socket in (one, two):
                assert await messages(socket, lambda last: last["type"] == "ticket_deleted") == [
                    {"type": "ticket_update", "ticket_id": ticket["id"], "state": "pending"},
                    {"type": "ticket_deleted", "ticket_id": ticket["id"]},
                ]
        assert (await api.get("/ws")).status_code == 400


async def test_metrics(tmp_path: Path) -> None:
    """Every one of the 14 states has a gauge."""
    async with served(tmp_path, config=quick(orchestrator=False)) as (standin, api):
        await create(api, body())
        answer = await api.get(standin.url.replace("/api/v1", "/metrics"))
    gauges = [line for line in answer.text.splitlines() if "tickets_by_state{" in line]
    assert len(gauges) == 14
    assert 'quentin_tickets_by_state{state="pending"} 1' in gauges
