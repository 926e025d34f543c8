"""The ticketer: one live ticket for each item, whatever happens to the call that makes it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
import pytest

from services.ticketer import __main__ as wiring
from services.ticketer.tickets import REMOTE_PRIORITY
from shared.errors import AttemptFailed, DependencyDown, ErrorType, Misconfigured
from shared.settings import Settings
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import RemoteTicket, TicketRequest
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
from tests.support.world import World, eventually, track_id

CREATE = "POST /tickets"


async def test_a_ticket_asks_for_the_track_and_nothing_else(still: World, by_hand: Stages) -> None:
    """Artist and title, `expected` track, a folder of its own, priority inverted, no conversion."""
    for priority in (1, 2, 3):
        await queue(still, [track_id(priority)], priority=priority)
    assert await by_hand.ticket() == 3
    rows = {row["torrentino_id"]: row for row in await tickets(still)}
    [identity] = await still.rows("SELECT id FROM identity")
    ours = f"{still.env['TORRENTINO_DEST_ROOT']}/{identity['id']}"
    for priority, remote in zip((1, 2, 3), still.standin.tickets(), strict=True):
        row = rows.pop(str(remote["id"]))
        assert remote["priority"] == row["priority"] == REMOTE_PRIORITY[priority]
        assert remote["dest_path"] == row["dest_path"] == f"{ours}/{row['id']}"
        assert remote["query_context"] == {
            "tags": ["music"],
            "description": f"The Testers Song {priority}",
            "expected": {
                "type": "track",
                "artist": "The Testers",
                "title": f"Song {priority}",
            },
        }
        assert "output_constraints" not in remote
    items = await still.items()
    assert {item["stage"] for item in items} == {"searching"}
    assert all(item["torrentino_ticket_id"] and item["attempt"] == 1 for item in items)
    assert all(item["lease_until"] is None for item in items)
    await assert_lawful(still)


async def test_urgent_first_then_oldest_and_never_too_many(still: World) -> None:
    """L-05, L-11: by priority, then age; MAX_TICKETS_IN_FLIGHT bounds what is open."""
    background = [track_id(n) for n in range(10)]
    user = [track_id(n) for n in range(10, 14)]
    await queue(still, background, priority=3)
    await queue(still, user, priority=2)
    await queue(still, [track_id(20)], priority=1)
    order = [track_id(20), *user, *background]
    async with stages(still, MAX_TICKETS_IN_FLIGHT="3") as by_hand:
        taken: list[str] = []
        while len(taken) < len(order):
            await by_hand.ticket()
            open_ = [i for i in await still.items() if i["stage"] == "searching"]
            # One place stays for users.
            most = 3 if len(taken) <= len(user) else 2
            assert len(open_) == len(still.live_tickets()) == min(most, len(order) - len(taken))
            assert await by_hand.ticket() == 0, "there is no room for more"
            taken += [
                item["track_id"] for item in sorted(open_, key=lambda i: (i["priority"], i["seq"]))
            ]
            for item in open_:
                by_hand.set_state(item, type="rejected", rejected_by="a test", reason=None)
            await by_hand.poll()
        assert taken == order


@pytest.mark.parametrize(
    ("fault", "delay_s"),
    [("database_locked", 1), ("database_locked_after_effect", 1), ("drop_after", 15)],
)
async def test_an_unknown_outcome_is_looked_up(
    still: World, by_hand: Stages, fault: str, delay_s: int
) -> None:
    """L-33: after an answer that says nothing, the ticket is found by its path, or made then."""
    await queue(still, [track_id(1)])
    still.faults.only = CREATE
    setattr(still.faults, fault, 1)
    await by_hand.ticket()
    waiting = await still.rows(
        "SELECT stage, extract(epoch FROM due_at - now()) AS wait_s FROM queue_items"
    )
    assert waiting[0]["stage"] == "queued"
    assert delay_s - 1 < waiting[0]["wait_s"] <= delay_s
    await by_hand.ticket()
    item = await one(still)
    (remote,) = still.standin.tickets()
    assert (item["stage"], item["torrentino_ticket_id"]) == ("searching", remote["id"])
    assert (item["attempt"], item["retry_count"], item["error_type"]) == (1, 0, None)
    assert still.standin.requests[CREATE] == (2 if fault == "database_locked" else 1)
    assert len(await tickets(still)) == 1


async def test_a_request_that_was_never_handled_is_repeated(still: World, by_hand: Stages) -> None:
    """L-33: a connection that broke before the effect leads to one ticket, not to none."""
    await queue(still, [track_id(1)])
    still.faults.only, still.faults.drop_before = CREATE, 1
    await by_hand.ticket()
    await by_hand.ticket()
    assert len(still.standin.tickets()) == len(await tickets(still)) == 1
    assert (await one(still))["stage"] == "searching"


async def test_an_answer_later_than_the_timeout_is_found(
    still: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-33: Torrentino answers after we have given up waiting; its ticket is the one we keep."""
    monkeypatch.setattr(wiring, "torrentino_client", _impatient)
    await queue(still, [track_id(1)])
    async with stages(still) as by_hand:
        still.faults.delay_s, still.faults.delay_only = 0.5, CREATE
        await by_hand.ticket()
        assert (await one(still))["stage"] == "queued"
        still.faults.delay_s = 0
        await by_hand.ticket()
    assert (await one(still))["torrentino_ticket_id"] == still.standin.tickets()[0]["id"]
    assert still.standin.requests[CREATE] == 1


def _impatient(settings: Settings) -> TorrentinoClient:
    assert settings.torrentino_url is not None
    return TorrentinoClient(
        base_url=settings.torrentino_url, api_key=None, timeout_s=0.2, rng=random.Random(0)
    )


@pytest.mark.parametrize("moment", ["before the call", "after the call", "after the record"])
async def test_a_ticketer_that_dies_leaves_one_ticket(
    still: World, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """L-33: killed at each of the three points, the next ticketer ends with one live ticket."""
    await queue(still, [track_id(1)])
    async with stages(still) as first, stages(still) as second:
        async with _Dying(first, moment):
            await first.ticket()
        await still.execute(
            "UPDATE queue_items SET lease_until = now() - interval '1 s'"
            " WHERE lease_until IS NOT NULL"
        )
        await second.give_back()
        await second.ticket()
        item = await one(still)
        (remote,) = still.standin.tickets()
        assert (item["stage"], item["torrentino_ticket_id"]) == ("searching", remote["id"])
        assert (item["attempt"], item["retry_count"]) == (1, 0)


class _Killed(BaseException):
    """What SIGKILL would do: nothing runs any more."""


class _Dying:
    """The ticketer of these stages is dead from this moment on; it cannot even hand back."""

    def __init__(self, by_hand: Stages, moment: str) -> None:
        self._starter: Any = by_hand.ticketer.starter
        self._moment = moment

    async def __aenter__(self) -> None:
        starter, moment = self._starter, self._moment
        client, store = starter.remote.client, starter.store
        create, record = client.create, store.record

        async def dead(*_: object, **__: object) -> None:
            raise _Killed

        async def create_and_die(*args: object) -> None:
            await create(*args)
            raise _Killed

        async def record_and_die(*args: object, **named: object) -> None:
            await record(*args, **named)
            raise _Killed

        client.create = {"before the call": dead, "after the call": create_and_die}.get(
            moment, create
        )
        if moment == "after the record":
            store.record = record_and_die
        starter.hand_back = dead

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, _Killed)


async def test_the_second_ticket_of_a_path_is_cancelled(still: World, by_hand: Stages) -> None:
    """L-33: of two tickets with our path, found when resuming, one is kept and one cancelled."""
    await queue(still, [track_id(1)])
    still.faults.only, still.faults.drop_after = CREATE, 1
    await by_hand.ticket()
    (row,) = await tickets(still)
    await _create(still, str(row["dest_path"]))
    await by_hand.ticket()
    states = {t["id"]: t["state"]["type"] for t in still.standin.tickets()}  # type: ignore[index]
    kept = (await one(still))["torrentino_ticket_id"]
    assert states.pop(kept) == "pending"
    assert list(states.values()) == ["cancelled"]


async def test_of_two_tickets_the_living_one_is_kept(still: World, by_hand: Stages) -> None:
    """A ticket that leads nowhere is not adopted beside one that is alive."""
    await queue(still, [track_id(1)])
    still.faults.only, still.faults.drop_after = CREATE, 1
    await by_hand.ticket()
    (dead,) = still.standin.tickets()
    still.standin.set_state(str(dead["id"]), {"type": "cancelled", "cancelled_by": "a person"})
    alive = await _create(still, str((await tickets(still))[0]["dest_path"]))
    await by_hand.ticket()
    assert (await one(still))["torrentino_ticket_id"] == alive


async def test_a_second_ticket_found_late_is_cancelled(still: World, by_hand: Stages) -> None:
    """L-33: a creation that shows up only after its item has another ticket is a stray."""
    await queue(still, [track_id(1)])
    await by_hand.ticket()
    stray = await _create(still, str((await tickets(still))[0]["dest_path"]))
    stranger = await _create(still, "/somewhere/else/x")
    await by_hand.strays()
    states = {t["id"]: t["state"]["type"] for t in still.standin.tickets()}  # type: ignore[index]
    assert states[stray] == "cancelled"
    assert states[stranger] == "pending"
    assert states[(await one(still))["torrentino_ticket_id"]] == "pending"


async def _create(world: World, dest_path: str) -> str:
    body = {"query_context": {"tags": [], "description": "x"}, "dest_path": dest_path}
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{world.standin.url}/tickets", json=body)
    return str(answer.json()["id"])


async def test_what_torrentino_rejects_fails_at_once(still: World, by_hand: Stages) -> None:
    """L-40: a 4xx on creation is `rejected`, is not repeated, and holds no place."""
    await queue(still, [track_id(1)])
    await still.execute("UPDATE queue_items SET main_artist = repeat('x', 3000000)")
    await by_hand.ticket()
    item = await one(still)
    assert (item["status"], item["error_type"]) == ("FAILED", "rejected")
    assert "413" in item["error_message"]
    assert still.standin.requests[CREATE] == 1
    assert [row["state"] for row in await tickets(still)] == ["closed"]
    await assert_lawful(still)


@pytest.mark.parametrize("fault", ["down", "unauthorized", "html"])
async def test_an_outage_burns_nothing_and_fills_no_history(
    still: World, by_hand: Stages, fault: str
) -> None:
    """L-41: while Torrentino is away the stage pauses, says so, and takes up by itself."""
    await queue(still, [track_id(n) for n in range(3)])
    setattr(still.faults, fault, True)
    held = [await held_by(by_hand.ticket) for _ in range(10)]
    wanted = DependencyDown if fault == "down" else Misconfigured
    assert all(isinstance(each, wanted) and each.dependency == "torrentino" for each in held)
    items = await still.items()
    assert {(i["stage"], i["retry_count"], i["attempt"]) for i in items} == {("queued", 0, 1)}
    assert await timeline(still, items[0]["id"]) == ["queued", "ticketing", "queued"]
    setattr(still.faults, fault, False)
    # What piled up goes out gradually.
    assert [await by_hand.ticket() for _ in range(2)] == [1, 2]
    assert {i["stage"] for i in await still.items()} == {"searching"}
    assert len(still.standin.tickets()) == 3
    assert by_hand.app.health.conditions()["torrentino"].ok


async def test_an_item_waits_for_the_end_of_its_old_ticket(still: World, by_hand: Stages) -> None:
    """A ticket that is being withdrawn keeps its track waiting, also under another item."""
    await queue(still, [track_id(1)])
    await by_hand.ticket()
    await still.execute(
        "UPDATE queue_items SET stage = 'failed', status = 'FAILED', completed_at = 1"
    )
    await still.execute("UPDATE tickets SET state = 'withdrawing'")
    await queue(still, [track_id(1)])
    assert await by_hand.ticket() == 0
    await still.execute("UPDATE tickets SET state = 'closed'")
    assert await by_hand.ticket() == 1


async def test_waiting_for_a_place_keeps_the_lease(still: World) -> None:
    """The lease of an item is kept from its claim on, not only once its turn has come."""
    await queue(still, [track_id(n) for n in range(12)])
    async with stages(still, LEASE_S="1") as by_hand:
        still.faults.delay_s = 0.5
        ticketing = asyncio.create_task(by_hand.ticket())

        async def held() -> int:
            return len(by_hand.ticket_leases.held)

        await eventually(held, lambda count: count == 12)
        still.faults.delay_s = 0
        assert await ticketing == 12
        assert await held() == 0


async def test_the_stop_hands_back(still: World, by_hand: Stages) -> None:
    """L-26: cancelled in the middle of a call, every claimed item goes back, unburnt.

    One whose request may still be at work there is not looked for at once.
    """
    await queue(still, [track_id(n) for n in range(12)])
    still.faults.delay_s, still.faults.delay_only = 30, CREATE
    ticketing = asyncio.create_task(by_hand.ticketer.run(asyncio.Event()))

    async def asked() -> int:
        return still.standin.requests[CREATE]

    await eventually(asked, lambda count: count == 8)
    ticketing.cancel("stopping")
    with pytest.raises(asyncio.CancelledError):
        await ticketing
    still.faults.delay_s = 0
    assert {i["stage"] for i in await still.items()} == {"queued"}
    waits = await still.rows(
        "SELECT extract(epoch FROM due_at - now()) > 10 AS wait, count(*) AS n"
        " FROM queue_items GROUP BY 1"
    )
    assert {row["wait"]: row["n"] for row in waits} == {True: 8, False: 4}
    await by_hand.ticket()
    assert len(still.standin.tickets()) == 12


async def test_a_slow_call_keeps_nobody_else_waiting(still: World, by_hand: Stages) -> None:
    """While one creation takes half a minute, all others go on, this batch's and the next."""
    await queue(still, [track_id(n) for n in range(40)])
    client: TorrentinoClient = by_hand.ticket_client
    create = client.create
    answering = asyncio.Event()

    async def first_is_slow(request: TicketRequest) -> RemoteTicket:
        if request.title == "Song 0":
            await answering.wait()
        return await create(request)

    by_hand.ticket_client.create = first_is_slow
    stop = asyncio.Event()
    ticketing = asyncio.create_task(by_hand.ticketer.run(stop))
    await eventually(
        still.items, lambda items: [i["stage"] for i in items].count("searching") == 39
    )
    answering.set()
    stop.set()
    await ticketing
    assert {i["stage"] for i in await still.items()} == {"searching"}


async def test_a_record_that_may_have_been_committed_is_not_undone(
    still: World, by_hand: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-33: PostgreSQL goes away behind the commit: the recorded ticket stays recorded."""
    await queue(still, [track_id(1)])
    store: Any = by_hand.starter.store
    record = store.record

    async def record_and_lose(*args: object, **named: object) -> None:
        await record(*args, **named)
        raise DependencyDown("postgres", "connection lost")

    monkeypatch.setattr(store, "record", record_and_lose)
    assert await held_by(by_hand.ticket) is not None
    item = await one(still)
    assert item["stage"] == "searching"
    assert item["torrentino_ticket_id"] == still.standin.tickets()[0]["id"]
    assert await by_hand.ticket() == 0
    assert await timeline(still) == ["queued", "ticketing", "searching"]


async def test_a_late_rejection_leaves_the_intent_alone(still: World) -> None:
    """Fence: a worker that lost the item does not close the intent that the next one resumes."""
    await queue(still, [track_id(1)])
    async with stages(still) as late, stages(still) as next_:
        starter = late.ticketer.starter
        (attempt,) = await starter.claim(1)
        await still.execute("UPDATE queue_items SET lease_until = now() - interval '1 s'")
        await next_.give_back()
        await starter.fail(attempt, AttemptFailed(ErrorType.REJECTED, "late"))
        assert (await tickets(still))[0]["state"] == "intent"
        await next_.ticket()
    assert (await tickets(still))[0]["state"] == "open"
    assert (await one(still))["stage"] == "searching"
