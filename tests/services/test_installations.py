"""Two installations at one media root, one Torrentino or one NATS are noticed, and stay apart."""

from __future__ import annotations

from pathlib import Path

import nats
import pytest

from services.poller.download_cleanup import Leftovers
from services.poller.downloads_store import TorrentsStore
from services.poller.removal_rules import RemovalRules
from services.take_over import take_over_media, take_over_nats
from shared.acquisition.direct import Direct
from shared.acquisition.removal import Removal
from shared.bus.streams import STREAMS, ensure_streams, owner_of
from shared.bus.subjects import DEAD, DEAD_STREAM, PREFIX
from shared.db.media_root import MediaRoot, forget_unused_root
from shared.db.pool import Database
from shared.errors import DependencyDown, Misconfigured
from shared.settings import SettingsError
from tests.services.test_bad_sources import HASHES
from tests.services.test_removal import client_has, torrent
from tests.support.stages import Stages, queue, stages, tickets
from tests.support.world import World, eventually


async def _another(world: World) -> None:
    """The database becomes that of another installation, which has used no media root yet."""
    await world.execute("DELETE FROM installation")
    await world.execute("UPDATE identity SET id = 'another'")


async def test_a_media_root_of_another_database_is_refused(still: World) -> None:
    """F23: with the command that takes it over. Then it is this one's, and the first one pauses;
    temporary files stay until then."""
    database = Database(still.database_url)
    try:
        first = MediaRoot(database, still.media)
        await first.check()
        [known] = await still.rows("SELECT media_root_id FROM installation")
        await _another(still)
        orphan = still.media / ".incoming" / "a.1.part"
        orphan.write_bytes(b"of the first")
        second = MediaRoot(database, still.media)
        with pytest.raises(Misconfigured, match="pezzottify-downloads media take-over"):
            await second.check()
        async with stages(still) as by_hand:
            with pytest.raises(Misconfigured):
                await by_hand.sweep()
        assert orphan.exists()
        await take_over_media(still.settings())
        await second.check()
        await still.execute("UPDATE installation SET media_root_id = $1", known["media_root_id"])
        with pytest.raises(DependencyDown, match="another media root"):
            await first.check()
    finally:
        await database.close()


async def test_a_restored_backup_keeps_its_media_root(still: World, tmp_path: Path) -> None:
    """As does a moved media root; and a crash between the mark and its record."""
    database = Database(still.database_url)
    try:
        await MediaRoot(database, still.media).check()
        moved = still.media.rename(tmp_path / "moved")
        await MediaRoot(database, moved).check()
        await forget_unused_root(database)
        root = MediaRoot(database, moved)
        assert not await root.is_anothers()
        await root.check()
        [known] = await still.rows("SELECT media_root_id FROM installation")
        [identity] = await still.rows("SELECT id FROM identity")
        assert known["media_root_id"].startswith(f"{identity['id']}.")
    finally:
        await database.close()


async def test_a_root_of_an_older_release_is_known_by_its_database(still: World) -> None:
    """Its mark names no installation, and is the one that this database recorded."""
    mark = still.media / ".incoming" / ".media-root"
    mark.parent.mkdir()
    mark.write_text("8d2f\n", encoding="ascii")
    await still.execute("INSERT INTO installation (media_root_id) VALUES ('8d2f')")
    database = Database(still.database_url)
    try:
        await MediaRoot(database, still.media).check()
        await _another(still)
        with pytest.raises(Misconfigured, match="8d2f"):
            await MediaRoot(database, still.media).check()
    finally:
        await database.close()


async def test_a_take_over_needs_a_media_root(still: World) -> None:
    """The setting is named."""
    settings = still.settings().model_copy(update={"media_path": None})
    with pytest.raises(SettingsError, match="MEDIA_PATH"):
        await take_over_media(settings)


async def test_tickets_of_another_installation_are_left_alone(still: World) -> None:
    """At one Torrentino, with one folder for deliveries: the sweep ends what is below our own
    folder, and nothing else."""
    async with stages(still) as by_hand:
        await queue(still, still.add_album(1, 1))
        await by_hand.ticket()
        [ticket] = await tickets(still)
        await still.execute("DELETE FROM item_requesters")
        await still.execute("DELETE FROM queue_items")
        await still.execute("DELETE FROM tickets")
        await still.execute("UPDATE identity SET id = 'another'")
        await by_hand.strays()
        await by_hand.poll()
        assert still.standin.requests["DELETE /tickets/{id}"] == 0
        mine = ticket["dest_path"].split("/")[-2]
        await still.execute("UPDATE identity SET id = $1", mine)
        await by_hand.strays()
        await by_hand.poll()
        assert still.live_tickets() == []


async def _lose_all_rows(world: World) -> None:
    """As when an asynchronous replica is promoted."""
    for table in ("item_requesters", "queue_items", "tickets", "bad_sources"):
        await world.execute(f"DELETE FROM {table}")


async def test_a_ticket_whose_row_was_lost_is_ended(world: World) -> None:
    """F26: one that is at work is cancelled, one that has delivered is cleaned up after; and the
    ticket of an intent that may still be claimed is left alone."""
    async with stages(world) as by_hand:
        world.faults.fates = {"song 1002": "stuck_downloading"}
        await queue(world, world.add_album(1, 2))
        await by_hand.ticket()

        async def states() -> set[object]:
            return {each["state"]["type"] for each in world.standin.tickets()}  # type: ignore[index]

        await eventually(states, lambda found: found == {"completed", "downloading"})
        assert len(world.ticket_folders()) == 1
        rows = await tickets(world)
        await world.execute("UPDATE tickets SET state = 'intent', torrentino_id = NULL")
        await by_hand.strays()
        assert {row["state"] for row in await tickets(world)} == {"intent"}
    await _lose_all_rows(world)
    # Another process: ended tickets are listed at its start, and then every hour.
    async with stages(world) as by_hand:
        await by_hand.strays()

        async def polled() -> set[object]:
            await by_hand.poll()
            await world.execute("UPDATE tickets SET withdrawn_at = now() - interval '1 hour'")
            return {row["state"] for row in await tickets(world)}

        await eventually(polled, lambda found: found == {"closed"})
        lost = await tickets(world)
        assert {row["dest_path"] for row in lost} == {row["dest_path"] for row in rows}
        assert world.live_tickets() == []
        await by_hand.clean()
        assert world.ticket_folders() == []


async def test_a_torrent_whose_row_was_lost_is_ended(still: World, by_hand: Stages) -> None:
    """In a folder that this installation ordered: what is not whole goes; what is whole may have
    been collected, and goes only where all does. In another installation's it stays."""
    [identity] = await still.rows("SELECT id FROM identity")
    root = f"/downloads/pezzottify/{identity['id']}"
    there = [
        torrent(HASHES[0], save_path=f"{root}/half", path=None, progress=0.5, size_bytes=1),
        torrent(HASHES[1], save_path=f"{root}/whole", path=None, size_bytes=2),
        torrent(
            HASHES[2], save_path="/downloads/pezzottify/b/c", path=None, progress=0.5, size_bytes=3
        ),
    ]
    client_has(by_hand, there)
    removed: list[str] = []

    async def remove_torrent(info_hash: str, **_: object) -> None:
        removed.append(info_hash)

    by_hand.poll_client.remove_torrent = remove_torrent
    for policy, gone in (("keep", []), ("wrong", HASHES[:1]), ("all", HASHES[:2])):
        settings = still.settings(DOWNLOAD_CLEANUP=policy)
        removal = Removal(by_hand.poll_client, RemovalRules(by_hand.app.database, settings))
        mode = Direct(by_hand.poll_client, downloads_root="/downloads", removal=removal)
        store = TorrentsStore(by_hand.app.database, poll_interval_s=1)
        await Leftovers(store, mode, removal, policy=settings.download_cleanup).run_once()
        assert removed == gone


async def test_the_streams_of_another_installation_are_refused(world: World) -> None:
    """F23: the second one takes no message of the first, and says what to do; then it takes them
    over, and continues by itself."""
    first = await world.run("ingest")
    await eventually(lambda: world.has_consumer("ingest"))
    await first.end()
    world.running.remove(first)
    await _another(world)
    second = await world.run("ingest")
    breaker = second.app.health.breaker("nats")

    async def refused() -> bool:
        return isinstance(breaker.error, Misconfigured)

    await eventually(refused)
    assert "pezzottify-downloads nats take-over" in str(breaker.error)
    await world.publish(f"{PREFIX}.request.track", {"request_id": "malformed"})
    assert not second.app.bus.connected.is_set()
    assert await world.events(DEAD, DEAD_STREAM) == []
    await take_over_nats(world.settings())
    await eventually(lambda: world.events(DEAD, DEAD_STREAM))
    assert breaker.ok


async def test_streams_of_an_older_release_become_ours(world: World) -> None:
    """They name no installation until ingest has opened its consumer."""
    client = await nats.connect(world.nats.url)
    try:
        js = client.jetstream()
        await ensure_streams(js)
        [identity] = await world.rows("SELECT id FROM identity")
        await world.run("ingest")

        async def owners() -> set[str | None]:
            names = [str(each.name) for each in STREAMS]
            return {owner_of((await js.stream_info(name)).config) for name in names}

        assert await eventually(owners, lambda found: found == {identity["id"]})
    finally:
        await client.close()
