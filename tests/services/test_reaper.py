"""The reaper: the items of a dead worker come back, what is not needed is removed."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from services.fetcher_writer.store import hold
from shared.db import moves
from shared.db.claims import Claim, renew
from shared.db.ledger import complete
from shared.errors import AttemptFailed, ErrorType, Stale
from shared.media.verify import AudioFacts
from shared.states import CLAIMED_FROM, LEASED, STATUS_OF, Stage
from tests.support.stages import BY_TEST, Stages, assert_lawful, bare_world, one, queue, stages
from tests.support.world import World, eventually, make_world, track_id

DAY_S = 86_400

FACTS = AudioFacts(
    ext="flac",
    codec="flac",
    container="flac",
    duration_ms=8000,
    bitrate_kbps=600,
    sample_rate_hz=44_100,
    channels=2,
    size_bytes=600_000,
    sha256="0" * 64,
)


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """The database is all that these tests need."""
    with bare_world(tmp_path, database_url) as made:
        yield made


@pytest.fixture
async def whole(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    """With NATS and Torrentino."""
    async with make_world(tmp_path, database_url) as made:
        yield made


async def put(world: World, track: str, stage: Stage, *, lease_s: float | None = None) -> Claim:
    """An item in this stage, however it came there; `lease_s` from now on, or ago."""
    await queue(world, [track])
    await world.execute(
        "INSERT INTO tickets (id, dest_path, priority, state, closed_at, collected_at)"
        " VALUES ($1, $1, 0, 'closed', now(), now())",
        f"ticket of {track}",
    )
    await world.execute(
        "UPDATE queue_items SET stage = $2, status = $3, ticket_id = $4, actor = $6,"
        " fence = new_fence(),"
        " lease_owner = CASE WHEN $5::float IS NOT NULL THEN 'a-worker' END,"
        " lease_until = now() + make_interval(secs => $5),"
        " completed_at = CASE WHEN $3 IN ('COMPLETED', 'FAILED') THEN 1 END"
        " WHERE track_id = $1",
        track,
        stage.value,
        STATUS_OF[stage].value,
        f"ticket of {track}",
        lease_s,
        BY_TEST,
    )
    (row,) = await world.rows("SELECT id, fence FROM queue_items WHERE track_id = $1", track)
    return Claim(item_id=row["id"], fence=row["fence"])


@pytest.mark.parametrize("stage", sorted(LEASED))
async def test_a_silent_worker_loses_its_items(world: World, stage: Stage) -> None:
    """L-25, L-49: expired leases go back, fresh ones stay, and the late worker can do nothing."""
    late = await put(world, track_id(1), stage, lease_s=-1)
    alive = await put(world, track_id(2), stage, lease_s=60)
    async with stages(world) as by_hand:
        assert await by_hand.give_back() == 0
        gone, kept = await world.items()
        assert gone["stage"] == CLAIMED_FROM[stage]
        assert gone["status"] == STATUS_OF[CLAIMED_FROM[stage]]
        assert (gone["lease_until"], gone["lease_owner"]) == (None, None)
        assert gone["retry_count"] == 0
        assert "a-worker" in gone["reason"]
        assert gone["fence"] != late.fence
        assert (kept["stage"], kept["fence"]) == (stage, alive.fence)
        await _nothing_from(late, by_hand)
        (after, _) = await world.items()
        assert after == gone
        assert await renew(by_hand.app.database, [late, alive], lease_s=60) == {alive.item_id}
        await assert_lawful(world)


async def _nothing_from(late: Claim, by_hand: Stages) -> None:
    """L-48: every write of a worker that has lost its claim is refused or has no effect."""
    async with by_hand.app.database.transaction() as connection:
        for stage in (Stage.READY, Stage.QUEUED):
            assert not await moves.hand_back(
                connection, [late], stage, delay_s=0, reason="late", actor="x"
            )
        with pytest.raises(Stale):
            await moves.advance(connection, [late], Stage.VERIFYING, reason="late", actor="x")
        with pytest.raises(Stale):
            await hold(connection, late)
        failed = await moves.fail(
            connection,
            [late],
            AttemptFailed(ErrorType.TIMEOUT, "late"),
            stages=LEASED,
            policy=by_hand.app.retries,
            actor="x",
        )
        assert failed == {}
        done = await complete(
            connection, late.item_id, FACTS, fence=late.fence, reason="late", actor="x"
        )
        assert done is False
    assert await by_hand.world.rows("SELECT 1 FROM media_files") == []


async def test_two_reapers_give_back_once(world: World) -> None:
    """Any number of reapers may run; an item is given back once."""
    for number in range(5):
        await put(world, track_id(number), Stage.FETCHING, lease_s=-1)
    async with stages(world) as one_, stages(world) as other:
        await one_.give_back()
        await other.give_back()
    rows = await world.rows("SELECT 1 FROM events WHERE actor = 'reaper'")
    assert len(rows) == 5


async def test_the_outbox_of_a_dead_service_is_published(whole: World) -> None:
    """What was committed and never published goes out with the next reaper."""
    await queue(whole, [track_id(n) for n in range(3)])
    running = await whole.run("reaper")
    await running.app.bus.connected.wait()
    events = await eventually(lambda: whole.events("item.queued.*"), lambda found: len(found) == 3)
    # The mark follows the message, when JetStream has it.
    rows = await eventually(
        lambda: whole.rows("SELECT id, published_at FROM events"),
        lambda found: all(row["published_at"] for row in found),
    )
    assert {e["headers"]["Nats-Msg-Id"] for e in events} == {str(row["id"]) for row in rows}


async def test_orphaned_temporary_files_are_swept(world: World) -> None:
    """L-17: an old .part without a holder goes; held ones, young ones and others stay."""
    held = await put(world, track_id(1), Stage.VERIFYING, lease_s=60)
    async with stages(world) as by_hand:
        await by_hand.sweep()  # marks the media root
        folder = world.media / ".incoming"
        orphan = folder / f"{uuid.uuid4()}.3.part"
        earlier = folder / f"{held.item_id}.6.part"
        active = folder / f"{held.item_id}.{held.fence}.part"
        other = folder / "notes.txt"
        for path in (orphan, earlier, active, other):
            path.write_bytes(b"x")
        await by_hand.sweep()
        assert all(path.exists() for path in (orphan, earlier, active, other)), "they are young"
        reaper = by_hand.sweep.__self__  # type: ignore[attr-defined]
        reaper.temp_age_s = 0.0
        await eventually(lambda: _swept(by_hand, orphan, earlier))
        assert active.exists()
        assert other.exists()
        await world.execute("UPDATE queue_items SET lease_until = now() - interval '1 s'")
        await by_hand.give_back()
        await eventually(lambda: _swept(by_hand, active))


async def _swept(by_hand: Stages, *paths: Path) -> bool:
    await by_hand.sweep()
    return not any(path.exists() for path in paths)


async def test_the_sweep_keeps_away_from_a_foreign_disk(world: World) -> None:
    """Where the media root's mark is missing, nothing is removed."""
    async with stages(world) as by_hand:
        await by_hand.sweep()
        (world.media / ".incoming" / ".media-root").unlink()
        orphan = world.media / ".incoming" / "a.1.part"
        orphan.write_bytes(b"x")
        os.utime(orphan, (1, 1))
        by_hand.sweep.__self__.temp_age_s = 0.0  # type: ignore[attr-defined]
        with pytest.raises(Exception, match="does not carry the mark"):
            await by_hand.sweep()
        assert orphan.exists()


async def test_old_items_go_with_their_whole_history(world: World) -> None:
    """Finished longer ago than the retention: item, events, requesters, ticket; nothing else."""
    await put(world, track_id(1), Stage.COMPLETED)
    await put(world, track_id(2), Stage.FAILED)
    await put(world, track_id(3), Stage.COMPLETED)
    await put(world, track_id(4), Stage.READY)
    await world.execute(
        "UPDATE queue_items SET completed_at = extract(epoch FROM now())::bigint - 60"
        " WHERE track_id = $1",
        track_id(3),
    )
    await world.execute("UPDATE events SET published_at = now()")
    await world.execute("UPDATE requests SET created_at = now() - interval '100 days'")
    await world.execute("UPDATE tickets SET closed_at = now() - interval '100 days'")
    await world.execute(
        "INSERT INTO media_files (track_id, audio_uri, ext, size_bytes, sha256, duration_ms,"
        " codec, bitrate_kbps) VALUES ($1, 'a', 'flac', 1, 'x', 1, 'flac', 1)",
        track_id(1),
    )
    async with stages(world) as by_hand:
        while await by_hand.prune():
            pass
    kept = [track_id(3), track_id(4)]
    assert [item["track_id"] for item in await world.items()] == kept
    ids = {item["id"] for item in await world.items()}
    for table in ("events", "item_requesters"):
        rows = await world.rows(f"SELECT DISTINCT item_id FROM {table}")
        assert {row["item_id"] for row in rows} == ids, table
    assert len(await world.rows("SELECT 1 FROM requests")) == 2
    assert len(await world.rows("SELECT 1 FROM tickets")) == 2
    assert len(await world.rows("SELECT 1 FROM media_files")) == 1, "the ledger stays"


@pytest.mark.parametrize(
    "reason",
    [
        "an event is not published",
        "its album is still open",
        "its ticket is still open",
        "its incoming folder is still there",
    ],
)
async def test_what_is_still_needed_is_not_pruned(world: World, reason: str) -> None:
    """An old item stays as long as anything of it has still to happen."""
    await put(world, track_id(1), Stage.COMPLETED)
    await world.execute("UPDATE events SET published_at = now()")
    match reason:
        case "an event is not published":
            await world.execute("UPDATE events SET published_at = NULL")
        case "its album is still open":
            await world.execute("UPDATE requests SET kind = 'album'")
        case "its ticket is still open":
            await world.execute("UPDATE tickets SET state = 'withdrawing'")
        case _:
            await world.execute("UPDATE tickets SET collected_at = NULL")
    async with stages(world) as by_hand:
        while await by_hand.prune():
            pass
        assert len(await world.items()) == 1
        await world.execute("UPDATE events SET published_at = now()")
        await world.execute("UPDATE requests SET settled_at = now()")
        await world.execute("UPDATE tickets SET state = 'closed', collected_at = now()")
        assert await by_hand.prune() == 1
    assert await world.items() == []


async def test_the_gauges_follow_the_rows(world: World) -> None:
    """Items by stage and priority are counted from the table, not kept."""
    await queue(world, [track_id(n) for n in range(3)], priority=1)
    async with stages(world) as by_hand:
        await by_hand.give_back()
        assert _gauge("queued", "1") == 3
        await world.execute("DELETE FROM events")
        await world.execute("DELETE FROM item_requesters")
        await world.execute("DELETE FROM queue_items")
        await by_hand.give_back()
        assert _gauge("queued", "1") is None


def _gauge(stage: str, priority: str) -> float | None:
    return REGISTRY.get_sample_value(
        "pezzottify_download_items", {"stage": stage, "priority": priority}
    )


async def test_the_item_of_a_killed_worker_arrives(whole: World) -> None:
    """L-25: claimed by a worker that died at once, the item is fetched by the next one."""
    (track,) = whole.add_album(1, 1, seconds=3)
    await queue(whole, [track], seconds=3)
    async with stages(whole) as dead, stages(whole) as alive:
        await dead.until_ready()
        assert len(await dead.fetcher.store.claim(4)) == 1
        assert await alive.fetch() == 0
        await whole.execute("UPDATE queue_items SET lease_until = now() - interval '1 s'")
        await alive.give_back()
        assert await alive.fetch() == 1
        assert (await one(whole))["status"] == "COMPLETED"
