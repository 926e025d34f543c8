"""One ticket for the tracks of an album: who shares it, who joins it, what becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from services.ticketer.groups import Group
from services.ticketer.places import Places
from services.ticketer.store import Store
from shared.catalog.models import Album
from shared.db.albums import remember_albums
from shared.db.pool import Connection, Database, Row
from shared.errors import AttemptFailed, ErrorType
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import RemoteTicket, TicketRequest
from tests.services.test_ticketer import CREATE
from tests.support.stages import (
    Stages,
    assert_lawful,
    catalog_track,
    one,
    queue,
    stages,
    tickets,
    timeline,
)
from tests.support.world import World, album_id, track_id


@pytest.fixture
async def by_hand(still: World) -> AsyncIterator[Stages]:
    """Workers that ask for albums."""
    async with stages(still, TICKET_GROUPING="auto") as made:
        yield made


def of_album(number: int, *places: int) -> list[str]:
    return [track_id(number * 1000 + place) for place in places]


async def remember(world: World, number: int, count: int) -> None:
    """Let the tracklist of an album be known, as ingest does."""
    tracks = of_album(number, *range(1, count + 1))
    album = Album(
        id=album_id(number),
        name=f"Album {number}",
        artist="The Testers",
        tracks=tuple(
            catalog_track(id_, seconds=8.0, artist="The Testers", album=number) for id_ in tracks
        ),
    )
    database = Database(world.database_url)
    async with database.transaction() as connection:
        await remember_albums(connection, [album])
    await database.close()


async def stages_of(world: World) -> list[str]:
    return [item["stage"] for item in await world.items()]


async def test_the_tracks_of_an_album_share_one_ticket(still: World, by_hand: Stages) -> None:
    """One search for twelve, with the whole tracklist, and the most urgent one's priority."""
    await remember(still, 1, 12)
    await queue(still, of_album(1, *range(1, 8)), album=1, priority=3)
    await queue(still, of_album(1, 8), album=1, priority=1)
    assert await by_hand.ticket() == 8
    [remote] = still.standin.tickets()
    assert remote["priority"] == 300
    context = remote["query_context"]
    assert context["description"] == "The Testers Album 1"  # type: ignore[index]
    expected = context["expected"]  # type: ignore[index]
    tracks = expected.pop("tracks")
    assert expected == {"type": "album", "artist": "The Testers", "title": "Album 1"}
    assert len(tracks) == 12, "wanted or not"
    assert tracks[2] == {
        "number": 3,
        "title": "Song 1003",
        "disc_number": 1,
        "duration_ms": 8000,
        "duration_secs": 8,
    }
    [ticket] = await tickets(still)
    assert (ticket["kind"], ticket["album_id"]) == ("album", album_id(1))
    items = await still.items()
    assert {item["ticket_id"] for item in items} == {ticket["id"]}
    assert {(item["stage"], item["attempt"]) for item in items} == {("searching", 1)}
    assert still.standin.requests[CREATE] == 1
    await assert_lawful(still)


async def test_a_part_of_a_tracklist_is_no_news(still: World) -> None:
    """A message may carry three of an album's tracks; what the catalog gave is kept, and grows."""
    for count, known in ((3, 3), (12, 12), (4, 12)):
        await remember(still, 1, count)
        [row] = await still.rows("SELECT tracks FROM albums")
        assert len(row["tracks"]) == known


async def test_without_a_known_tracklist_the_wanted_tracks_are_it(
    still: World, by_hand: Stages
) -> None:
    """A request over NATS may carry tracks of an album that was never looked up."""
    await queue(still, of_album(1, 4, 2), album=1)
    await by_hand.ticket()
    [remote] = still.standin.tickets()
    expected = remote["query_context"]["expected"]  # type: ignore[index]
    assert [track["number"] for track in expected["tracks"]] == [4, 2]


async def test_an_album_takes_one_place_of_those_in_flight(still: World) -> None:
    """MAX_TICKETS_IN_FLIGHT counts tickets: two albums and no third."""
    for number in (1, 2, 3):
        await queue(still, of_album(number, 1, 2, 3), album=number)
    async with stages(still, TICKET_GROUPING="auto", MAX_TICKETS_IN_FLIGHT="2") as by_hand:
        assert await by_hand.ticket() == 6
        assert await by_hand.ticket() == 0
    assert await stages_of(still) == ["searching"] * 6 + ["queued"] * 3


async def test_what_arrives_later_joins_the_open_ticket(still: World, by_hand: Stages) -> None:
    """Also a single track, which alone would have had its own ticket; no further search."""
    await queue(still, of_album(1, 1, 2), album=1)
    await by_hand.ticket()
    await queue(still, of_album(1, 3), album=1)
    assert await by_hand.ticket() == 1
    items = await still.items()
    assert len({(item["ticket_id"], item["torrentino_ticket_id"]) for item in items}) == 1
    assert await timeline(still, items[2]["id"]) == ["queued", "searching"]
    assert (items[2]["attempt"], items[2]["started_at"] is None) == (1, False)
    assert still.standin.requests[CREATE] == 1
    await assert_lawful(still)


@pytest.mark.parametrize(
    "why",
    [
        "UPDATE tickets SET process_asked_at = now()",
        "UPDATE tickets SET state = 'withdrawing'",
        "UPDATE tickets SET kind = 'track', album_id = NULL",
        """INSERT INTO bad_sources (track_id, info_hash, reason, item_id)
           SELECT track_id, 'h', 'broken', id FROM queue_items WHERE ticket_id IS NULL""",
        "UPDATE queue_items SET ask_next = 'track' WHERE ticket_id IS NULL",
    ],
)
async def test_nobody_joins_what_cannot_help(still: World, by_hand: Stages, why: str) -> None:
    """Its files are chosen already, it is being cancelled, it is a track's, its torrent is known
    to be broken for this track, or an album did not have the track before."""
    await queue(still, of_album(1, 1, 2), album=1)
    await by_hand.ticket()
    await still.execute("UPDATE tickets SET info_hash = 'h'")
    await queue(still, of_album(1, 3), album=1)
    await still.execute(why)
    assert await by_hand.ticket() == 1
    assert still.standin.requests[CREATE] == 2
    assert len(await tickets(still)) == 2


async def test_who_cannot_join_at_this_moment_waits_for_the_next(
    still: World, by_hand: Stages
) -> None:
    """A poller has the ticket's row, or its POST is under way: no second ticket is made for it."""
    await queue(still, of_album(1, 1, 2), album=1)
    await by_hand.starter.store.claim(1, takes_new=True)
    await queue(still, of_album(1, 3), album=1)
    assert await by_hand.ticket() == 0, "the album's ticket is being made"
    await still.execute(
        "UPDATE queue_items SET lease_until = now() - interval '1 s' WHERE stage = 'ticketing'"
    )
    await by_hand.give_back()
    await by_hand.ticket()
    async with by_hand.app.database.transaction() as connection:
        await connection.fetch("SELECT 1 FROM tickets FOR NO KEY UPDATE")
        assert await by_hand.ticket() == 0, "a poller has the ticket"
    assert await by_hand.ticket() == 1
    assert await stages_of(still) == ["searching"] * 3
    assert still.standin.requests[CREATE] == 1


class Meanwhile(Store):
    """A claim in whose middle the commit of an earlier transaction makes a third track due."""

    world: World
    ask_next: str | None

    async def due(
        self, connection: Connection, groups: Sequence[Group], limit: int, places: Places
    ) -> Sequence[Row]:
        if groups:
            await queue(self.world, of_album(1, 3), album=1)
            await self.world.execute(
                "UPDATE queue_items SET ask_next = $1, due_at = now() - interval '1 minute'"
                " WHERE track_id = $2",
                self.ask_next,
                *of_album(1, 3),
            )
        return await super().due(connection, groups, limit, places)


@pytest.mark.parametrize(("ask_next", "kinds"), [(None, 1), ("album", 1), ("track", 2)])
async def test_what_is_due_in_the_middle_of_a_claim_waits_to_join(
    still: World, by_hand: Stages, ask_next: str | None, kinds: int
) -> None:
    """The album's ticket is not there yet, and yet is the one: no two for one album."""
    await queue(still, of_album(1, 1, 2), album=1)
    settings = by_hand.app.settings
    store = Meanwhile(
        by_hand.app.database,
        dest_root=settings.torrentino_dest_root,
        grouping=settings.ticket_grouping,
        max_in_flight=settings.max_tickets_in_flight,
        lease_s=settings.lease_s,
        worker="test",
    )
    store.world, store.ask_next = still, ask_next
    # Two: the album takes one place, and the other is looked for something to fill it.
    works = await store.claim(2, takes_new=True)
    assert [(work.kind, len(work.items)) for work in works] == [("album", 2), ("track", 1)][:kinds]


async def test_grouping_by_track_joins_nothing(still: World, by_hand: Stages) -> None:
    """TICKET_GROUPING=track after a change of the setting: the open album ticket gets no more."""
    await queue(still, of_album(1, 1, 2), album=1)
    await by_hand.ticket()
    await queue(still, of_album(1, 3), album=1)
    async with stages(still, TICKET_GROUPING="track") as alone:
        await alone.ticket()
    assert [row["kind"] for row in await tickets(still)] == ["album", "track"]


async def test_a_ticketer_that_dies_leaves_one_ticket_for_all(
    still: World, by_hand: Stages
) -> None:
    """L-33: the whole album is given back, finds its ticket by the path, and asks for no other."""
    await queue(still, of_album(1, 1, 2, 3), album=1)
    still.faults.only, still.faults.drop_after = CREATE, 1
    await by_hand.ticket()
    assert await stages_of(still) == ["queued"] * 3
    await by_hand.ticket()
    items = await still.items()
    assert {(item["stage"], item["attempt"]) for item in items} == {("searching", 1)}
    assert len(still.standin.tickets()) == len(await tickets(still)) == 1


async def test_one_that_was_given_back_late_finds_the_others_ticket(
    still: World, by_hand: Stages
) -> None:
    """The reaper gives the items back one by one: who comes last joins what the first have made."""
    await queue(still, of_album(1, 1, 2, 3), album=1)
    await by_hand.starter.store.claim(1, takes_new=True)
    await still.execute(
        "UPDATE queue_items SET lease_until = now() - interval '1 s' WHERE track_id <> $1",
        *of_album(1, 3),
    )
    await by_hand.give_back()
    assert await by_hand.ticket() == 0, "while one is held its ticket may be being made"
    await still.execute(
        "UPDATE queue_items SET lease_until = now() - interval '1 s' WHERE stage = 'ticketing'"
    )
    await by_hand.give_back()
    await still.execute(
        "UPDATE queue_items SET due_at = 'infinity' WHERE track_id = $1", *of_album(1, 3)
    )
    await by_hand.ticket_once()
    assert await stages_of(still) == ["searching", "searching", "queued"]
    assert await by_hand.ticket() == 1
    assert await stages_of(still) == ["searching"] * 3
    assert len(still.standin.tickets()) == 1
    await assert_lawful(still)


async def test_one_withdrawal_leaves_the_others_their_ticket(still: World, by_hand: Stages) -> None:
    """Between claim and record one of three is cancelled: two go on, and the ticket lives."""
    await queue(still, of_album(1, 1, 2, 3), album=1)
    [work] = await by_hand.starter.store.claim(1, takes_new=True)
    await still.execute(
        "UPDATE queue_items SET stage = 'failed', status = 'FAILED', completed_at = 1, actor = $2,"
        " lease_until = NULL, fence = new_fence() WHERE track_id = $1",
        *of_album(1, 2),
        "a test's own",
    )
    assert await by_hand.starter.store.keep(work, for_s=20)
    assert await by_hand.starter.store.record(work, torrentino_id="t", priority=200)
    assert await stages_of(still) == ["searching", "failed", "searching"]
    [ticket] = await tickets(still)
    assert ticket["state"] == "open"


async def test_an_album_that_is_refused_goes_on_by_its_tracks(
    still: World, by_hand: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Torrentino takes for no good request of an album says nothing about its tracks."""
    await queue(still, of_album(1, 1, 2), album=1)
    client: TorrentinoClient = by_hand.ticket_client
    create = client.create

    async def refused(request: TicketRequest) -> RemoteTicket:
        if request.tracks is not None:
            raise AttemptFailed(ErrorType.REJECTED, "422")
        return await create(request)

    monkeypatch.setattr(by_hand.ticket_client, "create", refused)
    await by_hand.ticket()
    items = await still.items()
    assert {(i["stage"], i["ask_next"], i["retry_count"]) for i in items} == {
        ("queued", "track", 0)
    }
    [ticket] = await tickets(still)
    assert ticket["state"] == "closed"
    await by_hand.ticket()
    assert sorted(row["kind"] for row in await tickets(still)) == ["album", "track", "track"]
    await assert_lawful(still)


async def test_the_kinds_of_tickets_take_turns(still: World, by_hand: Stages) -> None:
    """auto: after a track's own ticket has failed its album's is asked for, and then again."""
    await queue(still, of_album(1, 1), album=1)
    for expected in ("track", "album", "track"):
        await by_hand.ticket()
        [ticket] = await still.rows("SELECT * FROM tickets WHERE state = 'open'")
        assert ticket["kind"] == expected
        by_hand.set_state(
            await one(still), type="failed", error="Download stalled: tried 2", retryable=False
        )
        await by_hand.poll()
        assert (await one(still))["stage"] == "retry_wait"
    assert (await one(still))["retry_count"] == 3
    await assert_lawful(still)
