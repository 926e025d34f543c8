"""Nothing at Torrentino that is not ours is removed, whatever the policy."""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.poller.removal_rules import RemovalRules
from shared.acquisition.removal import Case, Ground, Removal, Standing
from shared.db.bad_sources import block_source
from shared.db.pool import Database
from shared.db.torrents_seen import lock_for_add
from shared.errors import AttemptFailed, Conflict, ErrorType
from shared.torrentino.torrent import RemoteTorrent
from tests.services.test_bad_sources import HASHES, candidates
from tests.support.stages import Stages, one, queue, stages, tickets
from tests.support.world import World

ROOT = Path(__file__).parents[2]
REMOVE = "DELETE /torrents/{hash}"
X = HASHES[0]
DOWNLOADING = {
    "type": "downloading",
    "info_hash": X,
    "progress_pct": 3.0,
    "candidates": candidates(X, HASHES[1]),
}


def torrent(info_hash: str = X, **more: object) -> RemoteTorrent:
    """One that the client has, whole."""
    told = {"hash": info_hash, "name": "A torrent", "save_path": "/downloads", "progress": 1.0}
    return replace(RemoteTorrent.from_json(told | {"state": "seeding", "size_bytes": 5}), **more)  # type: ignore[arg-type]


def client_has(by_hand: Stages, torrents: Sequence[RemoteTorrent]) -> None:
    """From now on, for ticketer and poller."""

    async def listed() -> list[RemoteTorrent]:
        return list(torrents)

    by_hand.ticket_client.torrents = listed
    by_hand.poll_client.torrents = listed


@asynccontextmanager
async def on_torrent(
    still: World, *, there_before: bool, policy: str, added_at: datetime | None = None
) -> AsyncIterator[Stages]:
    """Our ticket downloads the torrent X, which was at the client before, or was not."""
    async with stages(still, TORRENTINO_CLEANUP=policy) as by_hand:
        client_has(by_hand, [torrent(added_at=added_at)] if there_before else [])
        await queue(still, still.add_album(1, 1))
        await by_hand.ticket()
        client_has(by_hand, [torrent(added_at=added_at)])
        by_hand.set_state(await one(still), **DOWNLOADING)
        await by_hand.poll()
        yield by_hand


async def block(still: World, by_hand: Stages, *, rule: str) -> None:
    """What the verification of its file ends with."""
    failure = AttemptFailed(ErrorType.CORRUPTION, "not the track", {"rule": rule})
    async with by_hand.app.database.transaction() as connection:
        await block_source(connection, (await one(still))["id"], failure)


async def withdraw(still: World) -> None:
    """As when its listener withdraws."""
    await still.execute("UPDATE tickets SET state = 'withdrawing'")
    await still.execute(
        "UPDATE queue_items SET stage = 'failed', status = 'FAILED', completed_at = 1"
    )


@pytest.mark.parametrize("policy", ["keep", "ticket", "torrent"])
async def test_a_torrent_that_was_there_before_stays(still: World, policy: str) -> None:
    """F21: not when it is blocked, not under the ticket, and not when the ticket is withdrawn."""
    async with on_torrent(still, there_before=True, policy=policy) as by_hand:
        await block(still, by_hand, rule="decode_errors")
        await by_hand.poll()
        assert (await one(still))["error_type"] == "not_found", "there is no next candidate"
        await withdraw(still)
        for _ in range(3):
            await by_hand.poll()
        await still.execute("UPDATE tickets SET withdrawn_at = now() - interval '1 hour'")
        by_hand.set_state(await one(still), type="cancelled")
        await by_hand.poll()
        await by_hand.poll()
        assert [row["state"] for row in await tickets(still)] == ["closed"]
        assert still.standin.requests[REMOVE] == 0
        [source] = await still.rows("SELECT * FROM bad_sources")
        assert source["removed_at"] is not None, "it is not asked about again"


@pytest.mark.parametrize("ticket", ["withdrawn", "downloading"])
async def test_the_client_tells_that_it_was_there_before(still: World, ticket: str) -> None:
    """As qBittorrent does, also where our list of that time lacks the torrent."""
    before = datetime.now(UTC) - timedelta(days=1)
    async with on_torrent(still, there_before=False, policy="torrent", added_at=before) as by_hand:
        if ticket == "withdrawn":
            await withdraw(still)
        else:
            await block(still, by_hand, rule="decode_errors")
        await by_hand.poll()
        assert still.standin.requests["DELETE /tickets/{id}"] == (ticket == "withdrawn")
        assert still.standin.requests[REMOVE] == 0


async def test_what_our_own_ticket_brought_goes(still: World) -> None:
    """A withdrawn download that was not there before; its first time at the client is forgotten."""
    async with on_torrent(still, there_before=False, policy="keep") as by_hand:
        await withdraw(still)
        await by_hand.poll()
    assert still.standin.requests[REMOVE] == 1
    assert await still.rows("SELECT 1 FROM torrents_seen") == []


async def test_what_an_earlier_ticket_of_ours_brought_is_ours(still: World) -> None:
    """The second ticket finds it there, and yet it is none of another's."""
    async with on_torrent(still, there_before=False, policy="keep") as by_hand:
        await block(still, by_hand, rule="decode_errors")
        by_hand.set_state(await one(still), type="completed")
        await still.execute("UPDATE tickets SET state = 'closed', collected_at = now()")
        await still.execute("UPDATE queue_items SET stage = 'queued', ticket_id = NULL")
        await by_hand.ticket()
        by_hand.set_state(await one(still), **DOWNLOADING)
        await by_hand.poll()
    assert still.standin.requests[REMOVE] >= 1


async def test_a_ticket_that_an_older_release_asked_for(still: World) -> None:
    """What was there before it is not known, so nothing of it goes, unless the client tells."""
    async with on_torrent(still, there_before=False, policy="torrent") as by_hand:
        await still.execute("UPDATE tickets SET listed_at = NULL")
        await withdraw(still)
        await by_hand.poll()
        assert still.standin.requests[REMOVE] == 0
        client_has(by_hand, [torrent(added_at=datetime.now(UTC))])
        by_hand.set_state(await one(still), **DOWNLOADING)
        await by_hand.poll()
        assert still.standin.requests[REMOVE] == 1


@pytest.mark.parametrize(
    ("policy", "rule", "removed"),
    [
        ("keep", "wrong_length", False),
        ("ticket", "wrong_length", False),
        ("torrent", "wrong_length", True),
        ("keep", "decode_errors", True),
    ],
)
async def test_another_length_blocks_and_leaves_the_torrent(
    still: World, policy: str, rule: str, removed: bool
) -> None:
    """Nothing is wrong with it, so only the policy that removes whole torrents removes it."""
    async with on_torrent(still, there_before=False, policy=policy) as by_hand:
        await block(still, by_hand, rule=rule)
        await by_hand.poll()
        assert await still.rows("SELECT 1 FROM bad_sources"), "it is blocked"
        await withdraw(still)
        await by_hand.poll()
    assert bool(still.standin.requests[REMOVE]) is removed


def by_rules(still: World, database: Database, by_hand: Stages) -> Removal:
    settings = still.settings(TORRENTINO_CLEANUP="torrent", DOWNLOAD_CLEANUP="all")
    return Removal(by_hand.poll_client, RemovalRules(database, settings))


@pytest.mark.parametrize(
    ("place", "others_bytes", "ours_added", "with_files"),
    [
        ("/downloads/A torrent", 9, False, False),
        ("/downloads/Another name", 5, True, False),
        ("/downloads/Another name", 5, False, True),
        ("/downloads/Another name", 9, True, True),
        ("/elsewhere/A torrent", 5, True, True),
    ],
)
async def test_files_that_another_torrent_uses_stay(
    still: World,
    by_hand: Stages,
    *,
    place: str,
    others_bytes: int,
    ours_added: bool,
    with_files: bool,
) -> None:
    """At the same path; with qBittorrent, whose names may not be those on disk, by folder and
    size, too."""
    folder, _, name = place.rpartition("/")
    added_at = datetime.now(UTC) + timedelta(minutes=1) if ours_added else None
    other = torrent(HASHES[1], path=place, save_path=folder, title=name, size_bytes=others_bytes)
    client_has(by_hand, [torrent(added_at=added_at), other])
    await still.execute(
        "INSERT INTO tickets (id, dest_path, priority, state, way, info_hash, ours)"
        " VALUES ('mine', 'direct:mine', 1, 'closed', 'direct', $1, true)",
        X,
    )
    asked: list[bool] = []

    async def remove_torrent(_: str, *, delete_files: bool) -> None:
        asked.append(delete_files)

    by_hand.poll_client.remove_torrent = remove_torrent
    case = Case(info_hash=X, ground=Ground.UNWANTED, mode="direct")
    removal = by_rules(still, by_hand.app.database, by_hand)
    assert await removal.torrent(case) is Standing.FREE
    assert asked == [with_files]


async def test_adds_and_removals_exclude_each_other(still: World, by_hand: Stages) -> None:
    """While a torrent is removed none is added, and what is about to be added stays; an add whose
    torrent is not known yet may be of any."""
    client_has(by_hand, [torrent()])
    await still.execute(
        "INSERT INTO tickets (id, dest_path, priority, state, way, info_hash, ours)"
        " VALUES ('mine', 'direct:mine', 1, 'closed', 'direct', $1, true)",
        X,
    )
    database = by_hand.app.database
    removal = by_rules(still, database, by_hand)
    case = Case(info_hash=X, ground=Ground.UNWANTED, mode="direct")
    async with removal.of(case) as permit:
        assert permit.standing is Standing.FREE
        async with database.transaction() as adder:
            assert not await lock_for_add(adder)
        with pytest.raises(Conflict):
            await removal.torrent(case)
    async with database.transaction() as adder, database.transaction() as another:
        assert await lock_for_add(adder)
        assert await lock_for_add(another)
        with pytest.raises(Conflict):
            await removal.torrent(case)
    await still.execute(
        "INSERT INTO tickets (id, dest_path, priority, state, way, adding_at)"
        " VALUES ('adds', 'direct:adds', 1, 'intent', 'direct', now())"
    )
    with pytest.raises(Conflict):
        await removal.torrent(case)
    await still.execute("UPDATE tickets SET info_hash = $1 WHERE id = 'adds'", X)
    assert await removal.torrent(case) is Standing.NEEDED
    assert still.standin.requests[REMOVE] == 0


def test_only_one_module_removes_anything_at_torrentino() -> None:
    """Which is where the policies and the ownership are asked about."""
    callers = set()
    ours = [*(ROOT / "services").rglob("*.py"), *(ROOT / "shared").rglob("*.py")]
    # Torrentino's stand-in has its own names.
    for path in (each for each in ours if "local" not in each.parts):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("remove_torrent", "delete_ticket"):
                callers.add(str(path.relative_to(ROOT)))
    assert callers == {"shared/acquisition/removal.py"}
