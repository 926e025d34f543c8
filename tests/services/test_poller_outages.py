"""Torrentino answers, and its torrent client does not: no attempt ends by that."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.services.test_poller import HASH
from tests.support.stages import Stages, assert_lawful, held_by, one, queue, stages, tickets
from tests.support.world import World, eventually

AWAY = (
    "All 5 candidates failed to add. Last error: API error: error sending request for url"
    " (http://admin:hunter22@qbittorrent:8080/api/v2/torrents/add?apikey=0123456789abcdef)"
)
CREATE = "POST /tickets"
DOWNLOADING = {"type": "downloading", "info_hash": HASH, "progress_pct": 3.0}


@pytest.fixture
async def by_hand(still: World) -> AsyncIterator[Stages]:
    """Workers that go by tickets, and let nothing pass for a stall at once."""
    async with stages(still, ACQUISITION="tickets", STALL_TIMEOUT_S="100") as made:
        yield made


async def test_a_ticket_that_could_not_be_added_is_asked_for_again(
    still: World, by_hand: Stages
) -> None:
    """Live §2.5: as a detour, which waits and burns no attempt; no key or password is kept."""
    await queue(still, still.add_album(1, 1))
    await by_hand.ticket()
    by_hand.set_state(await one(still), type="failed", error=AWAY, retryable=True)
    await by_hand.poll()
    item = await one(still)
    assert (item["stage"], item["retry_count"], item["detours"]) == ("queued", 0, 1)
    assert item["due_at"] > item["updated_at"]
    assert "torrent client does not answer" in item["reason"]
    [ticket] = await tickets(still)
    assert ticket["state"] == "closed"
    kept = str([item, ticket, await still.rows("SELECT * FROM events")])
    assert "0123456789abcdef" not in kept
    assert "hunter22" not in kept
    await assert_lawful(still)


async def test_no_ticket_is_made_while_the_client_is_away(still: World, by_hand: Stages) -> None:
    """It would search every indexer in vain. The items are handed back unharmed, and then left
    alone until the client is there again."""
    await queue(still, still.add_album(1, 2))
    still.faults.client_away = True
    held = await held_by(by_hand.ticket)
    assert held is not None
    assert held.dependency == "torrent_client"
    by_hand.app.health.failed(held)
    attempts = {(i["stage"], i["retry_count"]) for i in await still.items()}
    assert attempts == {("queued", 0)}
    moves = await still.rows("SELECT 1 FROM events")
    assert await held_by(by_hand.ticket) is not None
    assert await still.rows("SELECT 1 FROM events") == moves, "asked before anything is claimed"
    assert still.standin.requests[CREATE] == 0
    still.faults.client_away = False
    assert await by_hand.ticket() == 2
    assert by_hand.app.health.conditions()["torrent_client"].ok


async def test_only_what_needs_the_client_waits_for_it(still: World, by_hand: Stages) -> None:
    """One of three tickets is completed, and is not believed; the others are followed."""
    await queue(still, still.add_album(1, 3))
    await by_hand.ticket()
    first, second, third = await still.items()
    by_hand.set_state(first, **DOWNLOADING)
    await by_hand.poll()
    by_hand.set_state(first, type="completed", stats={"files_placed": 1})
    by_hand.set_state(second, **DOWNLOADING)
    by_hand.set_state(third, type="needs_approval", candidates=[])
    still.faults.client_away = True
    await by_hand.poll()
    stages_ = [item["stage"] for item in await still.items()]
    assert stages_ == ["downloading", "downloading", "needs_approval"]
    health = by_hand.app.health.conditions()
    assert (health["torrentino"].ok, health["torrent_client"].ok) == (True, False)
    still.faults.client_away = False
    by_hand.app.health.breaker("torrent_client").retry_at = 0.0
    await by_hand.poll()
    assert (await still.items())[0]["stage"] == "ready"
    assert by_hand.app.health.conditions()["torrent_client"].ok


async def test_nothing_stalls_while_the_client_is_away(still: World, by_hand: Stages) -> None:
    """A download that cannot move is not at fault."""
    await queue(still, still.add_album(1, 1))
    await by_hand.ticket()
    by_hand.set_state(await one(still), **DOWNLOADING)
    await by_hand.poll()
    client = by_hand.poll_client

    async def running() -> dict[str, object]:
        return {"running": True}

    client.orchestrator = running
    for away, stage in ((True, "downloading"), (False, "retry_wait")):
        still.faults.client_away = away
        breaker = by_hand.app.health.breaker("torrent_client")
        if away:
            by_hand.app.health.down("torrent_client", "away")
        breaker.retry_at = 0.0
        await still.execute("UPDATE tickets SET progressed_at = now() - interval '200 s'")
        await by_hand.poll()
        assert (await one(still))["stage"] == stage


async def test_a_cancel_waits_for_the_client(still: World, by_hand: Stages) -> None:
    """Otherwise the ticket would be cancelled and its torrent left, without a row that knows it."""
    await queue(still, still.add_album(1, 1))
    await by_hand.ticket()
    by_hand.set_state(await one(still), **DOWNLOADING)
    await by_hand.poll()
    await still.execute("UPDATE tickets SET state = 'withdrawing'")
    still.faults.client_away = True
    await by_hand.poll()
    assert len(still.live_tickets()) == 1
    still.faults.client_away = False
    await by_hand.poll()
    assert still.live_tickets() == []
    assert still.standin.requests["DELETE /torrents/{hash}"] == 1


async def test_a_blocked_torrent_waits_for_the_client(still: World, by_hand: Stages) -> None:
    """It stays on the list, and the tickets are looked at all the same."""
    await queue(still, still.add_album(1, 1))
    await by_hand.ticket()
    await still.execute(
        "INSERT INTO bad_sources (track_id, info_hash, reason, item_id)"
        " VALUES ('another', $1, 'was broken', 'before')",
        HASH,
    )
    by_hand.set_state(await one(still), type="needs_approval", candidates=[])
    still.faults.client_away = True
    await by_hand.poll()
    assert (await one(still))["stage"] == "needs_approval"
    assert len(await still.rows("SELECT 1 FROM bad_sources WHERE removed_at IS NULL")) == 1
    still.faults.client_away = False
    by_hand.app.health.breaker("torrent_client").retry_at = 0.0
    await by_hand.poll()
    assert await still.rows("SELECT 1 FROM bad_sources WHERE removed_at IS NULL") == []


async def test_all_arrives_after_the_client_was_away(world: World) -> None:
    """The whole way: it goes while tickets search and download, and not one attempt is lost."""
    await queue(world, world.add_album(1, 6))
    running = await world.run("ticketer", "poller", "fetcher_writer", ACQUISITION="tickets")

    async def tickets_there() -> int:
        return len(world.standin.tickets())

    await eventually(tickets_there)
    world.faults.client_away = True

    async def is_noticed() -> bool:
        return not running.app.health.breaker("torrent_client").ok

    await queue(world, world.add_album(2, 2))
    await running.app.bus.wake("ticket")
    await eventually(is_noticed)
    world.faults.client_away = False
    items = await world.until_ended(8)
    assert {(item["status"], item["retry_count"]) for item in items} == {("COMPLETED", 0)}
    await assert_lawful(world)
