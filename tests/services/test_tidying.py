"""What is left at Torrentino when all is fetched: nothing, or what TORRENTINO_CLEANUP leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from services.poller.removal_rules import RemovalRules
from services.poller.ticket_cleanup import Tidier
from shared.acquisition.removal import Removal
from shared.errors import DependencyDown
from shared.torrentino.model import TicketRequest
from tests.services.test_poller_albums import sees_downloads, until_failed, want
from tests.support.stages import Stages, queue, stages, tickets
from tests.support.world import Row, World

DELETE_TICKET = "POST /tickets/{id}/delete"
DELETE_TORRENT = "DELETE /torrents/{hash}"


async def ended(world: World, by_hand: Stages, number: int = 1, *, stage: str = "completed") -> Row:
    """A ticket on an album's folder whose files are ready; its items then end in `stage`."""
    await want(world, number=number)
    await until_failed(world, by_hand)
    await by_hand.poll()
    ticket = (await tickets(world))[-1]
    assert (ticket["state"], ticket["delivery"]) == ("closed", "torrent")
    await world.execute("UPDATE tickets SET collected_at = now() WHERE id = $1", ticket["id"])
    await _end(world, ticket, stage)
    return ticket


async def _end(world: World, ticket: Row, stage: str) -> None:
    done = stage in ("completed", "failed")
    await world.execute(
        "UPDATE queue_items SET stage = $2, status = CASE WHEN $3 THEN upper($2)"
        " ELSE 'DOWNLOADING' END, completed_at = CASE WHEN $3 THEN 1 END WHERE ticket_id = $1",
        ticket["id"],
        stage,
        done,
    )


def tidy_of(by_hand: Stages, policy: str, *, keep_days: int = 30) -> Callable[[], Awaitable[int]]:
    """The duty under this policy."""
    settings = by_hand.world.settings(TORRENTINO_CLEANUP=policy)
    tidier = Tidier(
        by_hand.app.database,
        Removal(by_hand.poll_client, RemovalRules(by_hand.app.database, settings)),
        policy=policy,  # type: ignore[arg-type]
        keep_days=keep_days,
    )
    return tidier.run_once


async def _tidied(world: World) -> list[bool]:
    return [row["tidied_at"] is not None for row in await tickets(world)]


@pytest.mark.parametrize(
    ("policy", "tickets_left", "data_left"),
    [("keep", 1, True), ("ticket", 0, True), ("torrent", 0, False)],
)
async def test_the_policy_says_what_goes(
    world: World, policy: str, tickets_left: int, data_left: bool
) -> None:
    """Nothing, the ticket, or the ticket and the torrent with its data; noted, so done once."""
    async with stages(world, **sees_downloads(world)) as by_hand:
        ticket = await ended(world, by_hand)
        tidy = tidy_of(by_hand, policy)
        assert await tidy() == 1
        assert await tidy() == 0
    assert len(world.standin.tickets()) == tickets_left
    assert any(world.downloads.iterdir()) is data_left
    assert world.standin.requests[DELETE_TORRENT] == (0 if data_left else 1)
    assert await _tidied(world) == [True], ticket


@pytest.mark.parametrize("stage", ["ready", "needs_choice", "failed"])
async def test_what_is_still_needed_waits(world: World, stage: str) -> None:
    """As long as a file may still be taken, nothing goes; a failed item needs none."""
    async with stages(world, **sees_downloads(world)) as by_hand:
        ticket = await ended(world, by_hand, stage=stage)
        tidy = tidy_of(by_hand, "torrent")
        assert await tidy() == (1 if stage == "failed" else 0)
        await world.execute("UPDATE tickets SET collected_at = NULL, tidied_at = NULL")
        await _end(world, ticket, "completed")
        assert await tidy() == 0, "its folder is not removed yet"
        await world.execute("UPDATE tickets SET collected_at = now()")
        assert await tidy() == 1


async def test_a_torrent_that_another_ticket_needs_outlives_the_ticket(world: World) -> None:
    """The last of its tickets takes it along."""
    async with stages(world, **sees_downloads(world)) as by_hand:
        await ended(world, by_hand, 1)
        second = await ended(world, by_hand, 2, stage="ready")
        await world.execute("UPDATE tickets SET info_hash = $1", world.torrents[0].info_hash)
        tidy = tidy_of(by_hand, "torrent")
        assert await tidy() == 1
        assert world.standin.requests[DELETE_TICKET] == 1
        assert world.standin.requests[DELETE_TORRENT] == 0
        await _end(world, second, "completed")
        assert await tidy() == 1
        assert world.standin.requests[DELETE_TORRENT] == 1
        assert world.standin.tickets() == []


async def test_a_torrent_that_a_stranger_follows_is_left_to_him(world: World) -> None:
    """The ticket goes all the same, and no worker waits for the stranger."""
    async with stages(world, **sees_downloads(world)) as by_hand:
        await ended(world, by_hand)
        client = by_hand.poll_client
        request = TicketRequest(
            description="x", artist=None, title="x", dest_path="/elsewhere/x", priority=1
        )
        stranger = await client.create(request)
        following = {"type": "downloading", "info_hash": world.torrents[0].info_hash}
        world.standin.set_state(stranger.id, following)
        assert await tidy_of(by_hand, "torrent")() == 1
    assert [ticket["id"] for ticket in world.standin.tickets()] == [stranger.id]
    assert world.standin.requests[DELETE_TORRENT] == 0


@pytest.mark.parametrize("keep_days", [0, 30])
async def test_a_ticket_that_was_kept_is_deleted_in_the_end(world: World, keep_days: int) -> None:
    """TICKET_KEEP_DAYS after it ended, also one that was left there on purpose long ago; its
    torrent stays, and nothing is deleted while a file may still be taken."""
    async with stages(world, **sees_downloads(world)) as by_hand:
        ticket = await ended(world, by_hand, stage="ready")
        tidy = tidy_of(by_hand, "keep", keep_days=keep_days)
        await world.execute(
            "UPDATE tickets SET tidied_at = now(), closed_at = now() - make_interval(days => $1)",
            keep_days - 1,
        )
        assert await tidy() == 0
        await _end(world, ticket, "completed")
        assert await tidy() == 0, "it is not over yet"
        await world.execute("UPDATE tickets SET closed_at = closed_at - interval '1 day'")
        world.faults.drop_after, world.faults.only = 1, DELETE_TICKET
        assert await tidy() == 0
        assert await tidy() == 1
        assert await tidy() == 0
        [ticket] = await tickets(world)
    assert ticket["ticket_deleted_at"] is not None
    assert world.standin.tickets() == []
    assert world.standin.requests[DELETE_TICKET] == 2
    assert world.standin.requests[DELETE_TORRENT] == 0
    assert any(world.downloads.iterdir())


async def test_nothing_is_deleted_twice(world: World) -> None:
    """What the policy removed is noted as deleted, and TICKET_KEEP_DAYS=0 deletes at once."""
    async with stages(world, **sees_downloads(world)) as by_hand:
        await ended(world, by_hand, 1)
        assert await tidy_of(by_hand, "ticket", keep_days=0)() == 1
        await ended(world, by_hand, 2)
        assert await tidy_of(by_hand, "keep", keep_days=0)() == 2, "tidied, and deleted"
    assert world.standin.tickets() == []
    assert world.standin.requests[DELETE_TICKET] == 2


async def test_an_outage_leaves_it_for_later(world: World) -> None:
    """Torrentino is away, then an answer is lost: everything goes in the end, and once."""
    async with stages(world, **sees_downloads(world)) as by_hand:
        await ended(world, by_hand)
        tidy = tidy_of(by_hand, "torrent")
        world.faults.down = True
        with pytest.raises(DependencyDown):
            await tidy()
        assert await _tidied(world) == [False]
        world.faults.down = False
        world.faults.drop_after, world.faults.only = 1, DELETE_TICKET
        assert await tidy() == 0
        assert await tidy() == 1
    assert world.standin.tickets() == []


async def test_a_client_that_is_away_leaves_it_for_later(world: World) -> None:
    """Its torrent cannot be removed, and without the ticket it would not be known any more."""
    async with stages(world, **sees_downloads(world)) as by_hand:
        await ended(world, by_hand)
        tidy = tidy_of(by_hand, "torrent")
        world.faults.client_away = True
        with pytest.raises(DependencyDown, match="torrent_client"):
            await tidy()
        assert await _tidied(world) == [False]
        world.faults.client_away = False
        assert await tidy() == 1
    assert world.standin.tickets() == []


async def test_a_withdrawn_ticket_is_tidied_like_any_other(still: World, by_hand: Stages) -> None:
    """Cancelled at Torrentino until it stays so, and then removed there."""
    await queue(still, still.add_album(1, 1))
    await by_hand.ticket()
    await still.execute("UPDATE tickets SET state = 'withdrawing'")
    tidy = tidy_of(by_hand, "ticket")
    await by_hand.poll()
    assert await tidy() == 0
    await still.execute(
        "UPDATE queue_items SET stage = 'failed', status = 'FAILED', completed_at = 1"
    )
    await by_hand.poll()
    await still.execute("UPDATE tickets SET withdrawn_at = now() - interval '1 hour'")
    await by_hand.poll()
    [ticket] = await tickets(still)
    assert ticket["state"] == "closed"
    await by_hand.clean()
    assert await tidy() == 1
    assert still.standin.tickets() == []
