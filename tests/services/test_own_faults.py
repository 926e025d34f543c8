"""One bad ticket never stops the others: at poller and ticketer, with every answer that is bad."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

import httpx
import pytest

from shared.errors import Unavailable
from shared.torrentino.answers import Answer, lost, refused
from tests.support.stages import Stages, one, queue, stages, tickets
from tests.support.world import World

OPTIONAL = ("/audit", "/catalog", "/pipeline", "/orchestrator")


def _answer(status: int, body: bytes, content_type: str = "application/json") -> Answer:
    return Answer(status=status, content_type=content_type, body=body)


PAGE = _answer(200, b"<!doctype html>", "text/html")
BROKEN = _answer(500, b'{"error": "Database error: malformed row"}')


def fails(*, effect: bool) -> dict[str, Callable[[], Answer]]:
    """What the adapter gets for a request of one ticket."""

    def raising(error: Exception) -> Callable[[], Answer]:
        def answer() -> Answer:
            raise error

        return answer

    return {
        "500": raising(refused(BROKEN, effect=effect)),
        "404 of a proxy": raising(refused(_answer(404, b"gone", "text/plain"), effect=effect)),
        "403 of a proxy": raising(refused(_answer(403, b"no", "text/plain"), effect=effect)),
        "a hang": raising(lost(httpx.ReadTimeout("no answer"), effect=effect)),
        "a page": lambda: PAGE,
        "broken JSON": lambda: _answer(200, b'{"id": '),
        "nonsense types": lambda: _answer(200, b'{"id": 5, "dest_path": [], "state": 3}'),
    }


READS, EFFECTS = fails(effect=False), fails(effect=True)


def spoil_reads(client: Any, ids: Collection[str], answer: Callable[[], Answer]) -> None:
    """Each of these tickets answers so; in lists it is a shape that cannot be read."""
    read = client.http.read

    async def spoiled(path: str, **how: Any) -> Answer:
        if path.removeprefix("/tickets/") in ids:
            return answer()
        found: Answer = await read(path, **how)
        if not path.startswith("/tickets?"):
            return found
        body = json.loads(found.body)
        body["tickets"] = [
            {**each, "state": "?"} if each["id"] in ids else each for each in body["tickets"]
        ]
        return _answer(200, json.dumps(body).encode())

    client.http.read = spoiled


def spoil_optional(client: Any, answer: Callable[[], Answer]) -> None:
    """Every optional look-up answers so."""
    read = client.http.read

    async def spoiled(path: str, **how: Any) -> Answer:
        if path.startswith(OPTIONAL):
            return answer()
        found: Answer = await read(path, **how)
        return found

    client.http.read = spoiled


def spoil_creations(client: Any, titles: Collection[str], answer: Callable[[], Answer]) -> None:
    """A ticket for one of these songs is answered so, and not made."""
    effect = client.http.effect

    async def spoiled(method: str, path: str, **how: Any) -> Answer:
        body = how["body"]
        if path == "/tickets" and json.loads(body)["query_context"]["expected"]["title"] in titles:
            return answer()
        found: Answer = await effect(method, path, **how)
        return found

    client.http.effect = spoiled


def works(by_hand: Stages) -> bool:
    return by_hand.app.health.breaker("torrentino").ok


@pytest.mark.parametrize("answer", ["404 of a proxy", "a page", "nonsense types"])
async def test_items_complete_without_what_only_helps(world: World, answer: str) -> None:
    """F15: the audit, the catalog of listings, the pipeline's and the orchestrator's status answer
    badly. The ticket was never seen to download, so its source is looked for there."""
    async with stages(world) as by_hand:
        spoil_optional(by_hand.poll_client, READS[answer])
        await queue(world, world.add_album(1, 1))
        await by_hand.until_ready()
        await by_hand.poll()
        assert (await one(world))["stage"] == "ready"
        assert works(by_hand)
        conditions = by_hand.app.health.conditions()
        assert not conditions["look_ups"].ok
        assert "audit" in conditions["look_ups"].detail


@pytest.mark.parametrize(
    ("bad", "answer"), [(1, each) for each in READS] + [(5, "500"), (20, "500")]
)
async def test_tickets_that_cannot_be_read_stop_no_other(
    still: World, by_hand: Stages, bad: int, answer: str
) -> None:
    """In one look all others arrive. The bad ones wait alone, without an attempt, and are read
    again later; then they arrive, too."""
    await queue(still, still.add_album(1, 10 + bad))
    while await by_hand.ticket():
        pass
    items = await still.items()
    for item in items:
        by_hand.set_state(item, type="completed", stats={"files_placed": 1})
    ids = {item["torrentino_ticket_id"] for item in items[:bad]}
    read = by_hand.poll_client.http.read
    spoil_reads(by_hand.poll_client, ids, READS[answer])
    await by_hand.poll()
    items = await still.items()
    assert [item["stage"] for item in items[bad:]] == ["ready"] * 10
    assert {item["stage"] for item in items[:bad]} == {"searching"}
    assert works(by_hand)
    waits = [row for row in await tickets(still) if row["torrentino_id"] in ids]
    assert [row["failures"] for row in waits] == [1] * bad
    assert all(row["remote_reason"] for row in waits), "it says so"
    by_hand.poll_client.http.read = read
    await by_hand.poll()
    assert {item["stage"] for item in await still.items()} == {"ready"}
    assert {row["failures"] for row in await tickets(still)} == {0}


async def test_a_ticket_that_can_never_be_read_comes_to_an_end(still: World) -> None:
    """It waits for longer each time, up to STALL_TIMEOUT_S; then it is withdrawn, and let go when
    it cannot be read then either."""
    async with stages(still, STALL_TIMEOUT_S="100") as by_hand:
        await queue(still, still.add_album(1, 1))
        await by_hand.ticket()
        ids = {(await one(still))["torrentino_ticket_id"]}
        spoil_reads(by_hand.poll_client, ids, READS["500"])
        waits = []
        for _ in range(4):
            await by_hand.poll()
            [row] = await still.rows("SELECT failures, next_poll_at - now() AS left FROM tickets")
            waits.append(row["left"])
        assert waits == sorted(waits)
        assert waits[3] > 4 * waits[0]
        await still.execute("UPDATE tickets SET progressed_at = now() - interval '200 s'")
        await by_hand.poll()
        item = await one(still)
        assert (item["stage"], item["error_type"]) == ("retry_wait", "stalled")
        assert "malformed row" in item["error_message"]
        for _ in range(11):
            await by_hand.poll()
        assert [row["state"] for row in await tickets(still)] == ["closed"]


async def test_an_outage_is_no_tickets_fault(still: World, by_hand: Stages) -> None:
    """The second look fails as well: nothing is counted against a ticket."""
    await queue(still, still.add_album(1, 3))
    await by_hand.ticket()
    still.faults.down = True
    with pytest.raises(Unavailable):
        await by_hand.poll()
    still.faults.down = False
    assert {row["failures"] for row in await tickets(still)} == {0}


async def _rounds(by_hand: Stages, titles: Collection[str]) -> int:
    """In how many rounds of the ticketer all items but these have their ticket."""
    for number in range(1, 20):
        await by_hand.ticket()
        items = await by_hand.world.items()
        if all(item["stage"] == "searching" for item in items if item["track_name"] not in titles):
            return number
    raise AssertionError("the others never got their tickets")


@pytest.mark.parametrize(
    ("bad", "answer"), [(1, each) for each in EFFECTS] + [(5, "500"), (20, "500")]
)
async def test_tickets_that_cannot_be_made_stop_no_other(
    still: World, by_hand: Stages, bad: int, answer: str
) -> None:
    """The others take at most 1.5 times the rounds, though the bad ones are the oldest."""
    rounds = 2 if bad == 1 else 3
    await queue(still, still.add_album(1, 16 * rounds - 8))
    titles = {item["track_name"] for item in (await still.items())[:bad]}
    spoil_creations(by_hand.ticket_client, titles, EFFECTS[answer])
    # 16 places a round.
    assert await _rounds(by_hand, titles) <= 1.5 * rounds
    assert works(by_hand)
    items = [item for item in await still.items() if item["track_name"] in titles]
    assert {item["stage"] for item in items} == {"queued"}
    assert {item["retry_count"] for item in items} == {0}
    assert all(row["failures"] for row in await tickets(still) if row["state"] == "intent")


async def test_a_ticket_that_can_never_be_made_ends_its_attempt(
    still: World, by_hand: Stages
) -> None:
    """After eight failures of its own, when no ticket is found for it; it says what happened."""
    await queue(still, still.add_album(1, 1))
    title = (await one(still))["track_name"]
    spoil_creations(by_hand.ticket_client, {title}, EFFECTS["500"])
    for _ in range(8):
        await by_hand.ticket()
        assert (await one(still))["stage"] == "queued"
    await by_hand.ticket()
    item = await one(still)
    assert (item["stage"], item["error_type"]) == ("retry_wait", "connection")
    assert "not for this request" in item["error_message"]
    assert [row["state"] for row in await tickets(still)] == ["closed"]
