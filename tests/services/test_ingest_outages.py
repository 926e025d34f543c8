"""What ingest does when something is away, or broken."""

from __future__ import annotations

import httpx
import pytest

from services.ingest.items import Items
from services.local.servers import free_port
from tests.support.ingest_helpers import V1, ask, ask_album, assert_problem, send, serve
from tests.support.world import World, album_id, eventually


async def test_postgres_away_is_503(world: World) -> None:
    """Without PostgreSQL every route that needs it answers 503 with Retry-After."""
    [track] = world.add_album(1, 1)
    api = await serve(world, DATABASE_URL=f"postgresql://x@127.0.0.1:{free_port()}/x")
    for answer in (
        await ask(api, track),
        await ask_album(api, album_id(1)),
        await api.get(f"{V1}/my-requests"),
        await api.get(f"{V1}/limits"),
        await api.get(f"{V1}/items/some-item"),
        await api.post(f"{V1}/admin/scan"),
        await api.get(f"{V1}/admin/stats"),
    ):
        assert_problem(answer, 503, "unavailable")
        assert answer.json()["title"].startswith("postgres")
        assert int(answer.headers["retry-after"]) > 0


async def test_without_nats_requests_are_taken_and_told_later(world: World) -> None:
    """NATS away: POST is 202 all the same, and the event leaves when NATS is back."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    await _nats_is(api, ok=True)
    await world.nats.kill()
    answer = await ask(api, track, "42")
    assert answer.status_code == 202, answer.text
    stats = await _nats_is(api, ok=False)
    assert stats.json()["outbox"]["waiting"] == 2
    await world.nats.start()
    await _nats_is(api, ok=True)
    [told] = await eventually(lambda: world.events("request.accepted"))
    assert told["body"]["queued"] == 1
    await send(world, track, "7")
    await eventually(lambda: world.rows("SELECT 1 FROM item_requesters"), lambda r: len(r) == 2)


async def _nats_is(api: httpx.AsyncClient, *, ok: bool) -> httpx.Response:
    return await eventually(
        lambda: api.get(f"{V1}/admin/stats"),
        lambda stats: stats.json()["health"]["nats"]["ok"] is ok,
    )


async def test_without_the_catalog_requests_are_503_and_messages_wait(world: World) -> None:
    """A catalog that is not there is named; what came over NATS is carried out when it is back."""
    [track] = world.add_album(1, 1)
    hidden = world.catalog.rename(world.folder / "hidden.db")
    api = await serve(world)
    answer = await ask(api, track)
    assert_problem(answer, 503, "unavailable")
    assert "catalog" in answer.json()["title"]
    assert str(world.catalog) in answer.json()["detail"]
    await send(world, track, "42")
    await eventually(
        lambda: api.get(f"{V1}/admin/stats"),
        lambda stats: stats.json()["health"].get("catalog", {}).get("ok") is False,
    )
    assert await world.items() == []
    hidden.rename(world.catalog)
    assert (await eventually(world.items))[0]["requested_by_user_id"] == "42"
    assert (await api.get(f"{V1}/admin/stats")).json()["health"]["catalog"]["ok"] is True


async def test_a_bug_of_ours_is_500_without_details(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected error is problem+json that tells nothing of what is inside."""

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of the house")

    api = await serve(world)
    monkeypatch.setattr(Items, "mine", broken)
    answer = await api.get(f"{V1}/my-requests")
    assert_problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    monkeypatch.undo()
    assert (await api.get(f"{V1}/my-requests")).status_code == 200
