"""The poller: follows every ticket to its end, whatever Torrentino makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.local.torrentino import StandinConfig
from services.poller.hints import Hints
from services.poller.store import Store
from shared.acquisition.ticket_reads import FEW, TicketReads
from shared.db.pool import Database
from shared.errors import DependencyDown, Misconfigured
from shared.torrentino.client import TorrentinoClient
from tests.support.stages import (
    Stages,
    assert_lawful,
    held_by,
    one,
    queue,
    stages,
    tickets,
    timeline,
)
from tests.support.world import Row, World, eventually, make_world, track_id

ONE, LIST = "GET /tickets/{id}", "GET /tickets"
CANDIDATES = [{"title": "A torrent", "info_hash": "a" * 40, "size_bytes": 5, "score": 0.5}]
HASH = "0123456789abcdef0123456789abcdef01234567"


async def ticketed(world: World, by_hand: Stages, count: int = 1) -> list[Row]:
    """Items with a ticket each, in the order of the queue."""
    await queue(world, [track_id(n) for n in range(1, count + 1)])
    while await by_hand.ticket():
        pass
    return await world.items()


# state, its fields, then: stage, error_type, state of our ticket
TABLE: list[tuple[str, dict[str, object], str, str | None, str]] = [
    ("pending", {}, "searching", None, "open"),
    ("acquiring", {"phase": {"phase": "searching"}}, "searching", None, "open"),
    ("auto_approved", {"selected": CANDIDATES[0]}, "searching", None, "open"),
    ("approved", {"selected": CANDIDATES[0]}, "searching", None, "open"),
    ("pending_retry", {"error": "503"}, "searching", None, "open"),
    ("needs_approval", {"candidates": CANDIDATES}, "needs_approval", None, "open"),
    ("downloading", {"info_hash": HASH, "progress_pct": 5.0}, "downloading", None, "open"),
    ("converting", {}, "processing", None, "open"),
    ("placing", {}, "processing", None, "open"),
    ("completed", {"stats": {"files_placed": 1}}, "ready", None, "closed"),
    ("failed", {"error": "Placement failed: x"}, "retry_wait", "storage", "closed"),
    ("failed", {"error": "Conversion failed: x"}, "retry_wait", "corruption", "closed"),
    ("failed", {"error": "All 2 candidates failed"}, "retry_wait", "connection", "closed"),
    ("failed", {"error": "Download stalled: x"}, "retry_wait", "stalled", "closed"),
    ("rejected", {"reason": None}, "failed", "rejected", "closed"),
    ("cancelled", {"reason": "by hand"}, "retry_wait", "cancelled", "withdrawing"),
    (
        "acquisition_failed",
        {"reason": "No suitable candidates found"},
        "retry_wait",
        "not_found",
        "withdrawing",
    ),
    ("acquisition_failed", {"reason": "No queries generated"}, "failed", "rejected", "withdrawing"),
    ("acquisition_failed", {"reason": "Search failed: away"}, "queued", None, "withdrawing"),
    ("from_the_future", {"detail": 7}, "searching", None, "open"),
    ("404", {}, "queued", None, "closed"),
]


async def test_every_state_moves_its_item(still: World, by_hand: Stages) -> None:
    """L-36: all 14 states, an unknown one and a ticket that is gone, through the real server."""
    items = await ticketed(still, by_hand, len(TABLE))
    for item, (state, fields, *_) in zip(items, TABLE, strict=True):
        if state == "404":
            await _delete(still, item)
        else:
            by_hand.set_state(item, type=state, **fields)
    await by_hand.poll()
    rows = {row["id"]: row for row in await tickets(still)}
    for item, (state, _, stage, error_type, ticket) in zip(await still.items(), TABLE, strict=True):
        row = rows[item["ticket_id"]]
        found = (item["stage"], item["error_type"], row["state"])
        assert found == (stage, error_type, ticket), state
        assert item["retry_count"] == (1 if stage == "retry_wait" else 0), state
        assert row["remote_state"] == ("gone" if state == "404" else state)
    await assert_lawful(still)


async def _delete(world: World, item: Row) -> None:
    core = world.standin.core
    ticket = core.tickets.get(item["torrentino_ticket_id"])
    assert ticket is not None
    core.tickets.delete(ticket, by="a test")


async def test_waiting_for_a_person_is_a_held_state(still: World) -> None:
    """L-02: needs_approval for many polls makes no second ticket and is not stalled."""
    async with stages(still, STALL_TIMEOUT_S="0.001") as by_hand:
        (item,) = await ticketed(still, by_hand)
        by_hand.set_state(item, type="needs_approval", candidates=CANDIDATES)
        for _ in range(10):
            await by_hand.poll()
            assert await by_hand.ticket() == 0
        assert (await one(still))["stage"] == "needs_approval"
        assert len(still.standin.tickets()) == 1
        (row,) = await tickets(still)
        assert row["candidates"][0]["title"] == "A torrent"
        assert "info_hash" not in row["candidates"][0]
        by_hand.set_state(item, type="downloading", info_hash=HASH, progress_pct=1.0)
        await by_hand.poll()
        assert (await one(still))["stage"] == "downloading"
        assert (await tickets(still))[0]["candidates"] is None


async def test_progress_is_kept_and_may_go_back(still: World, by_hand: Stages) -> None:
    """Progress, speed, ETA and size are stored as they change; a failover starts again at 0."""
    (item,) = await ticketed(still, by_hand)
    selected = {"info_hash": HASH, "size_bytes": 4711}

    async def seen(pct: float, speed: int, eta: int | None, info_hash: str) -> Row:
        by_hand.set_state(
            item,
            type="downloading",
            info_hash=info_hash,
            progress_pct=pct,
            speed_bps=speed,
            eta_secs=eta,
            candidate_idx=0,
            candidates=[selected],
        )
        await by_hand.poll()
        (row,) = await tickets(still)
        shown = (row["progress_pct"], row["speed_bps"], row["eta_s"], row["info_hash"])
        assert shown == (pct, speed, eta, info_hash)
        assert row["size_bytes"] == 4711
        return row

    first = await seen(40.0, 1000, 60, HASH)
    same = await seen(40.0, 900, 70, HASH)
    assert same["progressed_at"] == first["progressed_at"], "speed alone is no progress"
    again = await seen(40.0, 900, 70, HASH)
    assert _but_for_the_next_look(again) == _but_for_the_next_look(same)
    moved = await seen(41.0, 900, 70, HASH)
    assert moved["progressed_at"] > first["progressed_at"]
    back = await seen(0.0, 0, None, "b" * 40)
    assert back["progressed_at"] > moved["progressed_at"], "another torrent is progress"
    item = await one(still)
    assert (item["stage"], item["retry_count"]) == ("downloading", 0)
    assert (await timeline(still)).count("downloading") == 1


def _but_for_the_next_look(row: Row) -> Row:
    return {name: row[name] for name in row.keys() - {"next_poll_at", "looked_at"}}


async def test_what_postgresql_cannot_keep_stops_nothing(still: World, by_hand: Stages) -> None:
    """A NUL in a reason and numbers beyond 64 bits are dropped, and the ticket is followed."""
    nul, huge = await ticketed(still, by_hand, 2)
    by_hand.set_state(nul, type="failed", error="Placement failed: \0 in a name")
    by_hand.set_state(
        huge, type="downloading", info_hash=HASH, progress_pct=1e308, speed_bps=2**64, eta_secs=-1
    )
    await by_hand.poll()
    nul, huge = await still.items()
    assert (nul["stage"], nul["error_message"]) == (
        "retry_wait",
        "Torrentino: Placement failed:  in a name",
    )
    assert huge["stage"] == "downloading"


async def test_one_bad_ticket_does_not_hide_the_others(still: World, by_hand: Stages) -> None:
    """A ticket that we cannot cope with is logged; all others are looked at."""
    items = await ticketed(still, by_hand, 3)
    await still.execute(
        "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'broken'; END $$"
    )
    await still.execute(
        "CREATE TRIGGER broken BEFORE UPDATE OF remote_state ON tickets FOR EACH ROW"
        f" WHEN (NEW.torrentino_id = '{items[1]['torrentino_ticket_id']}')"
        " EXECUTE FUNCTION broken()"
    )
    for item in items:
        by_hand.set_state(item, type="downloading", info_hash=HASH, progress_pct=1.0)
    await by_hand.poll()
    stages_ = [item["stage"] for item in await still.items()]
    assert stages_ == ["downloading", "searching", "downloading"]


async def test_a_stalled_ticket_is_withdrawn_before_the_next(
    tmp_path: Path, database_url: str
) -> None:
    """L-49, 2.5: a stall costs an attempt, and no new ticket is made until the cancel holds."""
    config = StandinConfig(acquire_s=0.0, download_s=0.05, tick_s=0.01)
    async with (
        make_world(tmp_path, database_url, config) as world,
        stages(world, STALL_TIMEOUT_S="2", POLL_INTERVAL_S="0.05") as by_hand,
    ):
        (track,) = world.add_album(1, 1)
        world.faults.fates["song 1001"] = "stuck_downloading"
        await queue(world, [track])
        await by_hand.ticket()
        await by_hand.until_remote("downloading")
        item = await _poll_until(world, by_hand, "downloading")
        await _poll_until_progress(world, by_hand, 50.0)
        await world.execute("UPDATE tickets SET progressed_at = now() - interval '3 s'")
        await by_hand.poll()
        item = await one(world)
        assert (item["stage"], item["error_type"]) == ("retry_wait", "stalled")
        assert item["retry_count"] == 1
        looks = 0
        while await by_hand.ticket() == 0:
            assert len(world.standin.tickets()) == 1, "two tickets for one track"
            await by_hand.poll()
            looks += 1
        del world.faults.fates["song 1001"]
        assert looks >= 2, "one look is not enough to believe a cancel"
        ended, fresh = world.standin.tickets()
        assert ended["state"]["type"] in {"cancelled", "failed"}  # type: ignore[index]
        await by_hand.until_remote("completed", "cancelled", "failed")
        assert (await one(world))["torrentino_ticket_id"] == fresh["id"]
        assert world.standin.requests["DELETE /torrents/{hash}"] >= 1
        await assert_lawful(world)


async def _poll_until(world: World, by_hand: Stages, stage: str) -> Row:
    async def look() -> Row:
        await by_hand.poll()
        return await one(world)

    return await eventually(look, lambda item: item["stage"] == stage)


async def _poll_until_progress(world: World, by_hand: Stages, progress_pct: float) -> None:
    async def look() -> list[Row]:
        await by_hand.poll()
        return await tickets(world)

    await eventually(look, lambda rows: rows[0]["progress_pct"] == progress_pct)


async def test_a_cancel_that_is_overwritten_is_repeated(still: World, by_hand: Stages) -> None:
    """2.5: a withdrawn ticket that comes back to life is cancelled again, with its torrent."""
    (item,) = await ticketed(still, by_hand)
    await still.execute("UPDATE tickets SET state = 'withdrawing'")
    await by_hand.poll()
    assert still.live_tickets() == []
    by_hand.set_state(item, type="downloading", info_hash=HASH, progress_pct=1.0)
    await by_hand.poll()
    assert still.live_tickets() == []
    assert still.standin.requests["DELETE /tickets/{id}"] == 2
    assert still.standin.requests["DELETE /torrents/{hash}"] == 1
    await by_hand.poll()
    assert (await tickets(still))[0]["state"] == "withdrawing", "it has to hold for a while"
    await still.execute("UPDATE tickets SET withdrawn_at = now() - interval '1 s'")
    await by_hand.poll()
    assert (await tickets(still))[0]["state"] == "closed"


async def test_a_torrent_that_another_ticket_needs_is_kept(still: World, by_hand: Stages) -> None:
    """Withdrawing one ticket does not take the torrent away from another of our tickets."""
    one_, other = await ticketed(still, by_hand, 2)
    for item in (one_, other):
        by_hand.set_state(item, type="downloading", info_hash=HASH, progress_pct=1.0)
    await by_hand.poll()
    await still.execute("UPDATE tickets SET state = 'withdrawing' WHERE id = $1", one_["ticket_id"])
    await by_hand.poll()
    assert [t["id"] for t in still.live_tickets()] == [other["torrentino_ticket_id"]]
    assert still.standin.requests["DELETE /torrents/{hash}"] == 0


async def test_a_ticket_that_revives_after_its_end_is_a_stray(
    still: World, by_hand: Stages
) -> None:
    """2.5: a cancel overwritten long after it had held is found by the sweep for strays."""
    (item,) = await ticketed(still, by_hand)
    by_hand.set_state(item, type="failed", error="Placement failed: x")
    await by_hand.poll()
    await still.execute("UPDATE tickets SET collected_at = now()")
    assert (await tickets(still))[0]["state"] == "closed"
    by_hand.set_state(item, type="downloading", info_hash=HASH, progress_pct=1.0)
    await by_hand.strays()
    assert await by_hand.ticket() == 0, "no second ticket beside a living one"
    await by_hand.poll()
    assert still.live_tickets() == []
    assert still.standin.requests["DELETE /torrents/{hash}"] == 1
    await still.execute("UPDATE tickets SET withdrawn_at = now() - interval '1 s'")
    await by_hand.poll()
    (row,) = await tickets(still)
    assert (row["state"], row["collected_at"]) == ("closed", None)


async def test_a_ticket_without_items_is_withdrawn(still: World, by_hand: Stages) -> None:
    """An intent whose item was completed by a file found in place gives its place back."""
    await queue(still, [track_id(1)])
    still.faults.drop_after, still.faults.only = 1, "POST /tickets"
    await by_hand.ticket()
    await still.execute(
        "UPDATE queue_items SET stage = 'completed', status = 'COMPLETED', completed_at = 1"
    )
    assert len(still.live_tickets()) == 1
    await by_hand.strays()
    await by_hand.poll()
    assert still.live_tickets() == []
    await by_hand.poll()
    await still.execute("UPDATE tickets SET withdrawn_at = now() - interval '1 s'")
    await by_hand.poll()
    assert (await tickets(still))[0]["state"] == "closed"


async def test_a_withdrawn_intent_that_led_to_nothing_is_closed(
    still: World, by_hand: Stages
) -> None:
    """L-47: an item withdrawn before Torrentino had its ticket leaves nothing behind."""
    await queue(still, [track_id(1)])
    still.faults.drop_before, still.faults.only = 1, "POST /tickets"
    await by_hand.ticket()
    await still.execute("UPDATE tickets SET state = 'withdrawing'")
    await by_hand.poll()
    assert (await tickets(still))[0]["state"] == "withdrawing", "it may still be on its way"
    await still.execute("UPDATE tickets SET withdrawn_at = now() - interval '1 s'")
    await by_hand.poll()
    assert (await tickets(still))[0]["state"] == "closed"


async def test_many_tickets_are_read_by_lists(still: World, by_hand: Stages) -> None:
    """Above a few open tickets, lists are read; what changed lists meanwhile is read by its id."""
    items = await ticketed(still, by_hand, 20)
    for item in items[:12]:
        by_hand.set_state(item, type="completed", stats={"files_placed": 1})
    still.standin.requests.clear()
    await by_hand.poll()
    assert still.standin.requests[LIST] == 2, "downloading and completed, then few are left"
    assert still.standin.requests[ONE] == 8
    assert [i["stage"] for i in await still.items()] == ["ready"] * 12 + ["searching"] * 8
    still.standin.requests.clear()
    await by_hand.poll()
    assert still.standin.requests[LIST] == 0
    assert still.standin.requests[ONE] == 8 == FEW


async def test_a_ticket_that_changes_lists_is_not_gone(still: World, by_hand: Stages) -> None:
    """A ticket that moves from a later list to an earlier one between two requests is in none."""
    items = await ticketed(still, by_hand, 12)
    client: TorrentinoClient = by_hand.poll_client
    list_ = client.list

    def moving(*, state: str | None = None, **named: int) -> AsyncIterator[object]:
        if state == "acquiring":
            for item in items:
                by_hand.set_state(item, type="downloading", info_hash=HASH, progress_pct=9.0)
        return list_(state=state, **named)

    client.list = moving  # type: ignore[method-assign, assignment]
    await by_hand.poll()
    assert {i["stage"] for i in await still.items()} == {"downloading"}
    assert {t["state"] for t in await tickets(still)} == {"open"}


async def test_a_long_list_of_old_tickets_is_not_read_again(
    still: World, by_hand: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torrentino keeps every ticket for ever: what it costs to poll must not grow with them."""
    monkeypatch.setattr("shared.acquisition.ticket_reads.LONG_LIST", 10)
    items = await ticketed(still, by_hand, 30)
    for item in items:
        by_hand.set_state(item, type="completed", stats={"files_placed": 1})
    client = by_hand.poll_client
    reads = TicketReads(client)
    ids = [item["torrentino_ticket_id"] for item in items]
    still.standin.requests.clear()
    assert len(await reads.read(ids)) == 30
    again = still.standin.requests[LIST]
    assert len(await reads.read(ids)) == 30
    assert still.standin.requests[LIST] == 2 * again - 1
    assert all(remote is not None for remote in (await reads.read(ids)).values())


async def test_a_hint_during_a_look_is_not_lost(still: World, by_hand: Stages) -> None:
    """L-35: what changed after we read the ticket is looked at at once, not an interval later."""
    await ticketed(still, by_hand, 1)
    store = Store(Database(still.database_url), poll_interval_s=3600)
    [ticket] = await store.claim(limit=9)
    assert ticket.torrentino_id is not None
    client = TorrentinoClient(base_url=still.standin.url, api_key=None)
    remote = await client.get(ticket.torrentino_id)
    assert remote is not None
    await store.hasten([ticket.torrentino_id])
    async with store.database.transaction() as connection:
        await store.observe(connection, ticket, remote)
    [again] = await store.claim(limit=9)
    assert again.id == ticket.id
    async with store.database.transaction() as connection:
        await store.observe(connection, again, remote)
    assert await store.claim(limit=9) == []
    await client.close()
    await store.database.close()


async def test_an_emptied_torrentino_gets_new_tickets(still: World, by_hand: Stages) -> None:
    """404 for all: its database was lost; every item gets a new ticket and no attempt is burnt."""
    items = await ticketed(still, by_hand, 12)
    for item in items:
        await _delete(still, item)
    await by_hand.poll()
    assert {(i["stage"], i["retry_count"]) for i in await still.items()} == {("queued", 0)}
    await by_hand.ticket()
    renewed = await still.items()
    assert {(i["stage"], i["retry_count"], i["attempt"]) for i in renewed} == {("searching", 0, 2)}
    assert len(still.live_tickets()) == 12


@pytest.mark.parametrize("fault", ["down", "unauthorized", "html"])
async def test_an_outage_moves_nothing(still: World, by_hand: Stages, fault: str) -> None:
    """L-41: while Torrentino is away no ticket ends and no item moves; then work continues."""
    (item,) = await ticketed(still, by_hand)
    by_hand.set_state(item, type="completed", stats={"files_placed": 1})
    setattr(still.faults, fault, True)
    held = await held_by(by_hand.poll)
    assert isinstance(held, DependencyDown if fault == "down" else Misconfigured)
    assert (await one(still))["stage"] == "searching"
    setattr(still.faults, fault, False)
    await by_hand.poll()
    assert (await one(still))["stage"] == "ready"
    assert by_hand.app.health.conditions()["torrentino"].ok


async def test_an_outage_in_the_middle_puts_the_rest_off(still: World, by_hand: Stages) -> None:
    """A Unavailable while one ticket is being cancelled keeps no other waiting for long."""
    await ticketed(still, by_hand, 3)
    await still.execute("UPDATE tickets SET state = 'withdrawing'")
    client = by_hand.poll_client

    async def away(*_: object, **__: object) -> None:
        raise DependencyDown("torrentino", "away")

    # Both: where Torrentino answers a second look, it is the one ticket's fault.
    client.cancel = client.health = away
    assert await held_by(by_hand.poll) is not None
    rows = await still.rows("SELECT extract(epoch FROM next_poll_at - now()) AS s FROM tickets")
    assert all(row["s"] <= 0.2 for row in rows)


async def test_a_search_outage_asks_again_with_a_new_ticket(still: World, by_hand: Stages) -> None:
    """L-41: Jackett away: withdrawn, then a new ticket; no attempt is burnt."""
    (item,) = await ticketed(still, by_hand)
    by_hand.set_state(item, type="acquisition_failed", reason="Search failed: x?apikey=secret1")
    await by_hand.poll()
    assert await by_hand.ticket() == 0, "the old one is still being withdrawn"
    await by_hand.poll()
    await by_hand.poll()
    await still.execute("UPDATE tickets SET withdrawn_at = now() - interval '1 s'")
    await by_hand.poll()
    assert await by_hand.ticket() == 1
    item = await one(still)
    assert (item["retry_count"], item["attempt"]) == (0, 2)
    assert "secret1" not in str(await still.rows("SELECT * FROM events"))
    assert len(still.live_tickets()) == 1


async def test_completed_stays_completed(still: World, by_hand: Stages) -> None:
    """L-03: whatever the ticket says later, a COMPLETED item does not move."""
    (item,) = await ticketed(still, by_hand)
    await still.execute(
        "UPDATE queue_items SET stage = 'completed', status = 'COMPLETED', completed_at = 1"
    )
    by_hand.set_state(item, type="failed", error="Placement failed: x")
    await by_hand.poll()
    item = await one(still)
    assert (item["status"], item["error_type"], item["retry_count"]) == ("COMPLETED", None, 0)


async def test_two_pollers_look_once(still: World, by_hand: Stages) -> None:
    """A ticket that one poller has claimed is left alone by the other; the outcome is one."""
    items = await ticketed(still, by_hand, 6)
    for item in items:
        by_hand.set_state(item, type="failed", error="Placement failed: x")
    await still.execute("UPDATE tickets SET next_poll_at = now()")
    async with stages(still) as second:
        still.standin.requests.clear()
        await by_hand.poll_once()
        await second.poll_once()
        assert still.standin.requests[ONE] == 6
        await second.poll()
    assert {i["retry_count"] for i in await still.items()} == {1}


async def test_hints_make_a_ticket_due_and_are_never_needed(world: World) -> None:
    """L-35: with a WebSocket a change is seen long before the interval; it is a hint only."""
    (track,) = world.add_album(1, 1)
    running = await world.run("ticketer", "poller", POLL_INTERVAL_S="600", SWEEP_INTERVAL_S="600")
    await running.app.bus.connected.wait()

    async def connected() -> int:
        return world.standin.requests["GET /ws"]

    await eventually(connected)
    await queue(world, [track])
    await running.app.bus.wake("ticket")
    await eventually(lambda: one(world), lambda item: item["stage"] == "ready", within_s=20)


async def test_without_a_websocket_polling_completes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-35: every event lost, the item still arrives by polling."""
    (track,) = world.add_album(1, 1)

    monkeypatch.setattr("services.poller.hints.Hints.take", _nothing)
    await queue(world, [track])
    await world.run("ticketer", "poller")
    await eventually(lambda: one(world), lambda item: item["stage"] == "ready", within_s=20)


async def _nothing(*_: object) -> None:
    """A hint without a subscriber."""


async def test_hints_that_end_are_not_missed_in_silence(
    still: World, by_hand: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in the WebSocket's listener ends the duty with its error."""

    async def broken(*_: object) -> AsyncIterator[str]:
        raise RuntimeError("a bug")
        yield ""

    monkeypatch.setattr("services.poller.hints.ticket_hints", broken)
    hints = Hints(
        settings=by_hand.app.settings,
        store=Store(by_hand.app.database, poll_interval_s=1),
        wake=asyncio.Event(),
        health=by_hand.app.health,
    )
    with pytest.raises(RuntimeError, match="a bug"):
        await hints.run(asyncio.Event())


async def test_tickets_that_lead_nowhere_again_and_again_wait_longer(still: World) -> None:
    """A detour burns no attempt; from MAX_RETRIES in a row on each waits longer, up to an hour, and
    the item says so; an attempt, or an administrator's retry, begins the count again."""
    env = {"RETRY_INITIAL_S": "60", "RETRY_MULTIPLIER": "2.5", "MAX_RETRIES": "3"}
    async with stages(still, **env) as by_hand:
        await queue(still, [track_id(1)])
        waits = []
        for _ in range(8):
            while not await by_hand.ticket():
                await by_hand.poll()
            by_hand.set_state(
                await one(still), type="acquisition_failed", reason="Search failed: x"
            )
            await by_hand.poll()
            item = await one(still)
            assert (item["stage"], item["retry_count"]) == ("queued", 0)
            waits.append((item["due_at"] - item["updated_at"]).total_seconds())
            await still.execute("UPDATE tickets SET state = 'closed'")
        longest = [60, 60, 60, 150, 375, 937.5, 2343.75, 3600]
        for wait, most in zip(waits, longest, strict=True):
            assert 0.8 * most <= wait <= most, waits
        assert "8 tickets in a row" in str(item["reason"])
        assert item["detours"] == 8
        await by_hand.ticket()
        by_hand.set_state(await one(still), type="failed", error="Placement failed: x")
        await by_hand.poll()
        item = await one(still)
        assert (item["detours"], item["retry_count"]) == (0, 1)


async def test_fifty_vanished_tickets_do_not_come_back_at_once(still: World) -> None:
    """Torrentino's database was emptied: all items ask again, spread over a fifth of the wait."""
    async with stages(still, RETRY_INITIAL_S="100") as by_hand:
        items = await ticketed(still, by_hand, 50)
        for item in items:
            await _delete(still, item)
        await by_hand.poll()
        items = await still.items()
        assert {(item["stage"], item["retry_count"]) for item in items} == {("queued", 0)}
        due = sorted(item["due_at"] for item in items)
        assert len(set(due)) > 45
        assert 10 < (due[-1] - due[0]).total_seconds() < 25
