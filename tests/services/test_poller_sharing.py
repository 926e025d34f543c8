"""A torrent that is removed hurts who else follows it: live §2.7."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection

import pytest

from services.poller.removal_rules import RemovalRules
from shared.acquisition.followed_torrents import followed
from shared.acquisition.removal import Case, Ground, Removal
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import TicketRequest
from shared.torrentino.torrent import RemoteTorrent
from tests.services.test_bad_sources import HASHES, candidates
from tests.services.test_poller import HASH
from tests.support.stages import Stages, one, queue, stages, tickets
from tests.support.world import World

REMOVE = "DELETE /torrents/{hash}"
DOWNLOADING = {"type": "downloading", "info_hash": HASH, "progress_pct": 3.0}
SELECTED = {"selected": {"title": "A torrent", "info_hash": HASH.upper()}}


@pytest.fixture
async def by_hand(still: World) -> AsyncIterator[Stages]:
    """Workers that go by tickets."""
    async with stages(still, ACQUISITION="tickets") as made:
        yield made


def client_of(by_hand: Stages) -> TorrentinoClient:
    client: TorrentinoClient = by_hand.poll_client
    return client


async def strangers(still: World, by_hand: Stages, **state: object) -> str:
    """A ticket of another client, in this state."""
    request = TicketRequest(
        description="x", artist=None, title="x", dest_path="/elsewhere/x", priority=1
    )
    remote = await client_of(by_hand).create(request)
    still.standin.set_state(remote.id, state)
    return remote.id


@pytest.mark.parametrize(
    ("state", "is_followed"),
    [
        (DOWNLOADING, True),
        ({"type": "auto_approved"} | SELECTED, True),
        ({"type": "approved"} | SELECTED, True),
        (DOWNLOADING | {"info_hash": HASHES[0]}, False),
        (DOWNLOADING | {"info_hash": ""}, False),
        ({"type": "completed"}, False),
        ({"type": "converting"}, False),
    ],
)
async def test_what_a_living_ticket_follows(
    still: World, by_hand: Stages, state: dict[str, object], is_followed: bool
) -> None:
    """By its hash, in either case of letters; the ticket that is asked about does not count."""
    client = client_of(by_hand)
    ticket = await strangers(still, by_hand, **state)
    expected = frozenset({HASH} if is_followed else ())
    assert await followed(client, [HASH, HASHES[1]], but=None) == expected
    assert await followed(client, [HASH], but=ticket) == frozenset()
    assert await followed(client, [], but=None) == frozenset()


@pytest.mark.parametrize(
    ("reads", "at_work", "is_followed"),
    [
        ("/downloads/A torrent", True, True),
        ("/downloads/A torrent/01.flac", True, True),
        ("/downloads/A torrent (live)", True, False),
        (None, True, False),
        ("/downloads/A torrent", False, False),
    ],
)
async def test_what_the_pipeline_reads_is_followed(
    still: World, by_hand: Stages, reads: str | None, at_work: bool, is_followed: bool
) -> None:
    """Such a ticket does not tell its hash any more; one that a restart stranded reads nothing."""
    client = client_of(by_hand)
    ticket = await strangers(still, by_hand, type="placing")

    async def pipeline() -> frozenset[str]:
        return frozenset({ticket} if at_work else ())

    async def conversion_input(_: str) -> str | None:
        return reads

    async def torrent(_: str) -> RemoteTorrent:
        told = {"hash": HASH, "name": "A torrent", "save_path": "/downloads", "progress": 1.0}
        return RemoteTorrent.from_json(told)

    client.pipeline = pipeline  # type: ignore[method-assign]
    client.conversion_input = conversion_input  # type: ignore[method-assign, assignment]
    client.torrent = torrent  # type: ignore[method-assign, assignment]
    assert bool(await followed(client, [HASH], but=None)) is is_followed


async def test_a_cancel_leaves_what_a_stranger_downloads(still: World, by_hand: Stages) -> None:
    """The ticket goes, the torrent stays."""
    await queue(still, still.add_album(1, 1))
    await by_hand.ticket()
    stranger = await strangers(still, by_hand, **DOWNLOADING)
    by_hand.set_state(await one(still), **DOWNLOADING)
    await by_hand.poll()
    await still.execute("UPDATE tickets SET state = 'withdrawing'")
    await by_hand.poll()
    assert [ticket["id"] for ticket in still.live_tickets()] == [stranger]
    assert still.standin.requests[REMOVE] == 0


async def test_a_refusal_leaves_what_a_stranger_downloads(still: World, by_hand: Stages) -> None:
    """As where another of our tickets needs it: the attempt ends, and nothing is removed."""
    [track] = still.add_album(1, 1)
    await queue(still, [track])
    await by_hand.ticket()
    await _block(still, track)
    await strangers(still, by_hand, **DOWNLOADING)
    by_hand.set_state(await one(still), **DOWNLOADING, candidates=candidates(HASH, HASHES[1]))
    await by_hand.poll()
    item = await one(still)
    assert (item["stage"], item["error_type"]) == ("retry_wait", "not_found")
    await by_hand.poll()
    assert still.standin.requests[REMOVE] == 0


async def _block(still: World, track: str) -> None:
    await still.execute(
        "INSERT INTO bad_sources (track_id, info_hash, reason, item_id)"
        " VALUES ($1, $2, 'was broken', 'before')",
        track,
        HASH,
    )


async def brought(still: World, info_hash: str) -> None:
    """A ticket of ours has brought this torrent, and has ended."""
    await still.execute(
        "INSERT INTO tickets (id, dest_path, priority, state, info_hash, listed_at, collected_at)"
        " VALUES ('before', 'before', 1, 'closed', $1, now(), now())",
        info_hash,
    )


async def test_a_blocked_torrent_stays_as_long_as_a_stranger_follows_it(
    still: World, by_hand: Stages
) -> None:
    """It is removed when that is over."""
    await brought(still, HASH)
    await _block(still, "a track")
    stranger = await strangers(still, by_hand, **DOWNLOADING)
    await by_hand.poll()
    assert still.standin.requests[REMOVE] == 0
    still.standin.set_state(stranger, {"type": "completed"})
    await by_hand.poll()
    assert still.standin.requests[REMOVE] == 1


@pytest.mark.parametrize(
    ("state", "stages_", "needed"),
    [
        ("intent", (), True),
        ("open", (), True),
        ("withdrawing", (), True),
        ("closed", ("fetching", "completed"), True),
        ("closed", ("completed",), False),
    ],
)
async def test_what_is_downloaded_directly_is_needed(
    still: World, by_hand: Stages, state: str, stages_: Collection[str], needed: bool
) -> None:
    """Both ways may be in use at once; and what was blocked is never removed under the other."""
    await queue(still, still.add_album(1, len(stages_) or 1))
    await still.execute(
        "INSERT INTO tickets (id, dest_path, priority, state, way, info_hash, ours)"
        " VALUES ('direct', 'direct', 1, $1, 'direct', $2, true)",
        state,
        HASH,
    )
    for item, stage in zip(await still.items(), stages_, strict=False):
        done = stage == "completed"
        await still.execute(
            "UPDATE queue_items SET ticket_id = 'direct', stage = $2, status = $3,"
            " completed_at = CASE WHEN $4 THEN 1 END,"
            " lease_until = CASE WHEN $4 THEN NULL ELSE now() + interval '1 h' END WHERE id = $1",
            item["id"],
            stage,
            "COMPLETED" if done else "DOWNLOADING",
            done,
        )
    rules = RemovalRules(by_hand.app.database, still.settings(TORRENTINO_CLEANUP="torrent"))
    case = Case(info_hash=HASH, ground=Ground.COLLECTED, mode="tickets", download_id="another")
    assert await Removal(client_of(by_hand), rules).may_go(case) is not needed
    await _block(still, "a track")
    await by_hand.poll()
    assert still.standin.requests[REMOVE] == 0
    assert [row["way"] for row in await tickets(still)] == ["direct"]
