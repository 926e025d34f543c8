"""The bridge names placed files in the catalog, and the catalog server does not notice it."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from services import words
from services.bridge import publisher as publishing
from services.bridge.catalog_file import PAUSE_S, ROWS_AT_ONCE, CatalogFile, Change
from services.bridge.catalog_guard import CatalogId
from services.bridge.figures import Figures
from services.bridge.publisher import Counts, Publisher
from services.bridge.store import Store
from shared.clock import SystemClock
from shared.db.media_root import MediaRoot
from shared.db.pool import Database
from shared.db.publication import NOT_CONFIRMED, NOT_PUBLISHED
from shared.errors import DependencyDown, Misconfigured, Unavailable
from shared.health import Health
from shared.media.paths import audio_uri
from shared.metrics import FILES, FILES_NOT_PLAYABLE
from tests.support.catalog_server import (
    CatalogServer,
    catalog_server,
    create_server_catalog,
    playable,
)
from tests.support.commands import command
from tests.support.published import (
    named,
    named_files_are_whole,
    place_files,
    set_uri,
    with_server_catalog,
)
from tests.support.stages import bare_world
from tests.support.waits import eventually
from tests.support.world import Row, World, album_id, track_id

# From this size on SQLite makes a checkpoint with each commit, unless it is told not to.
_CHECKPOINT_BYTES = 1000 * 4096 * 1.1
WRITES = {"BRIDGE_CATALOG_WRITE": "true"}


@pytest.fixture
def place(tmp_path: Path, database_url: str) -> Iterator[World]:
    """A database, a media root, and a catalog with the server's schema; no NATS, no Torrentino."""
    with bare_world(tmp_path, database_url) as world:
        create_server_catalog(world.catalog)
        yield world


@pytest.fixture
def ids(place: World) -> list[str]:
    """The tracks of an album in the catalog."""
    return add_tracks(place, 10)


def add_tracks(world: World, count: int, *, album: int = 1) -> list[str]:
    """An album in the catalog only."""
    return world.add_album(album, count, songs=False, audio=Path("none"))


@pytest.fixture
async def server(place: World, ids: list[str]) -> AsyncIterator[CatalogServer]:
    """A process that has the catalog open as the server has."""
    async with catalog_server(place.catalog) as made:
        yield made


@asynccontextmanager
async def publisher_of(
    world: World,
    *,
    server_stopped: bool = False,
    busy_timeout_s: float = 0.05,
    replace_broken: bool = False,
) -> AsyncIterator[Publisher]:
    """The bridge's publishing, one step at a time."""
    database, clock = Database(world.database_url), SystemClock()
    catalog = CatalogFile(
        world.catalog, server_stopped=server_stopped, busy_timeout_s=busy_timeout_s
    )
    try:
        yield Publisher(
            store=Store(database, replace_broken=replace_broken),
            catalog=catalog,
            root=MediaRoot(database, world.media),
            health=Health(clock),
            clock=clock,
        )
    finally:
        await catalog.close()
        await database.close()


@pytest.fixture
async def publisher(place: World, server: CatalogServer) -> AsyncIterator[Publisher]:
    async with publisher_of(place) as made:
        yield made


async def ledger(world: World) -> dict[str, Row]:
    rows = await world.rows("SELECT * FROM media_files ORDER BY track_id")
    return {row["track_id"]: row for row in rows}


async def refusal(step: Callable[[], Awaitable[object]]) -> Unavailable:
    """The error with which a step is refused."""
    with pytest.raises(Unavailable) as refused:
        await step()
    assert refused.value.dependency == "catalog_write"
    return refused.value


def untouched(catalog: Path) -> dict[str, tuple[bytes, int, int]]:
    """Bytes, modification time and number of the three files of a catalog."""
    files = (catalog.with_name(catalog.name + ending) for ending in ("", "-wal", "-shm"))
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
        for path in files
        if path.exists()
    }


async def test_a_completed_album_plays_within_two_seconds(world: World) -> None:
    """Must hold 1: audio.ready is enough, and the server's job then completes the album."""
    with_server_catalog(world)
    ids = world.add_album(1, 10, seconds=1.0)
    async with catalog_server(world.catalog) as server:
        # No sweep comes in time.
        await world.run("bridge", **WRITES, SWEEP_INTERVAL_S="60")
        running = await world.run()
        assert running.api is not None
        (await running.api.post(f"/v1/download/album/{album_id(1)}")).raise_for_status()
        await world.until_ended(10)
        files = await eventually(
            lambda: ledger(world),
            lambda found: len(found) == 10 and all(row["published_at"] for row in found.values()),
            within_s=5,
        )
        assert playable(world.catalog, world.media) == ids
        [done] = await world.rows("SELECT max(at) AS at FROM events WHERE stage = 'completed'")
        last = max(row["published_at"] for row in files.values())
        assert (last - done["at"]).total_seconds() < 2
        # Ten tracks, the album and its artist.
        assert await server.order("tidy", media=str(world.media)) == 12
        with sqlite3.connect(world.catalog) as connection:
            [(album,)] = connection.execute("SELECT album_availability FROM albums")
            flags = connection.execute("SELECT DISTINCT track_available FROM tracks").fetchall()
        connection.close()
        assert (album, flags) == ("complete", [(1,)])


async def test_without_the_setting_no_byte_is_written(world: World) -> None:
    """Must hold 7: a file is requested, placed and scanned, and the catalog is as it was."""
    with_server_catalog(world)
    [id_] = world.add_album(1, 1, seconds=1.0)
    async with catalog_server(world.catalog):
        before = untouched(world.catalog)
        assert set(before) == {"catalog.db", "catalog.db-wal", "catalog.db-shm"}
        running = await world.run()
        assert running.api is not None
        (await running.api.post(f"/v1/download/track/{id_}")).raise_for_status()
        await world.until_ended(1)
        (await running.api.post("/v1/download/admin/scan")).raise_for_status()
        await eventually(
            lambda: world.rows("SELECT 1 FROM scans WHERE state = 'done'"), within_s=10
        )
        await running.end()
        assert untouched(world.catalog) == before


async def test_only_audio_uri_changes(place: World, ids: list[str], publisher: Publisher) -> None:
    """Every other column of every table says what it said, track_available too."""
    await place_files(place, ids)

    def everything() -> list[str]:
        with sqlite3.connect(place.catalog) as connection:
            lines = [line for line in connection.iterdump() if not line.startswith("INSERT")]
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (table,) in tables.fetchall():
                columns = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
                names = [name for (name,) in columns if (table, name) != ("tracks", "audio_uri")]
                rows = connection.execute(f"SELECT {', '.join(names)} FROM {table}")
                lines += [repr((table, row)) for row in rows]
        connection.close()
        return lines

    before = everything()
    counts = await publisher.publish_all()
    assert counts == Counts(checked=10, written=10)
    assert everything() == before


@pytest.mark.parametrize("case", ["ours", "second copy", "absolute", "outside", "folder"])
async def test_a_value_that_leads_to_a_file_stays(
    case: str, place: World, ids: list[str], publisher: Publisher
) -> None:
    """As the server resolves it: whatever exists there is played, and counts as published."""
    [uri, *_] = await place_files(place, ids[:1])
    other = place.media / "Artist" / "song.ogg"
    other.parent.mkdir()
    other.write_bytes(b"another file")
    elsewhere = place.folder / "elsewhere.ogg"
    elsewhere.write_bytes(b"not below the root")
    value = {
        "ours": uri,
        "second copy": "Artist/song.ogg",
        "absolute": str(elsewhere),
        "outside": "../elsewhere.ogg",
        "folder": "Artist",
    }[case]
    set_uri(place.catalog, ids[0], value)
    counts = await publisher.publish_all()
    outside = int(case in ("absolute", "outside"))
    assert counts == Counts(checked=1, named=1, outside=outside)
    assert named(place.catalog)[ids[0]] == value
    assert (await ledger(place))[ids[0]]["published_at"] is not None


@pytest.mark.parametrize("value", [None, "", "audio/gone.ogg", "/no/such/file", "a/\0/b"])
async def test_a_value_that_leads_to_no_file_is_replaced(
    value: str | None, place: World, ids: list[str], publisher: Publisher
) -> None:
    """NULL, empty, or the path of what is gone: the server plays nothing there."""
    [uri, *_] = await place_files(place, ids[:1])
    set_uri(place.catalog, ids[0], value)
    assert await publisher.publish_all() == Counts(checked=1, written=1)
    assert named(place.catalog)[ids[0]] == uri


@pytest.mark.parametrize("case", ["replaced", "setting is off", "changed since"])
async def test_a_broken_file_is_replaced_only_by_the_setting(
    case: str, place: World, ids: list[str], server: CatalogServer
) -> None:
    """The catalog then names ours; a file that was changed since it was found broken stays."""
    [uri, *_] = await place_files(place, ids[:1])
    old = place.media / "old.ogg"
    old.write_bytes(b"half a file")
    set_uri(place.catalog, ids[0], "old.ogg")
    await place.execute(_BROKEN, ids[0], old.stat().st_size, old.stat().st_mtime_ns)
    if case == "changed since":
        old.write_bytes(b"a whole file by now")
    async with publisher_of(place, replace_broken=case != "setting is off") as publisher:
        await publisher.publish_all()
    assert named(place.catalog)[ids[0]] == (uri if case == "replaced" else "old.ogg")


_BROKEN = """
INSERT INTO presence_problems (track_id, audio_uri, kind, detail, size_bytes, modified_ns)
VALUES ($1, 'old.ogg', 'broken', 'half of it', $2, $3)
"""


async def test_the_server_s_own_edit_is_made_good(
    place: World, ids: list[str], publisher: Publisher, server: CatalogServer
) -> None:
    """A value that became NULL again is published again by the next pass over all."""
    await place_files(place, ids)
    await publisher.publish_all()
    await server.order("edit", track_id=ids[3])
    assert await publisher.publish_all() == Counts(checked=10, written=1, named=9)
    assert playable(place.catalog, place.media) == ids


async def test_a_file_that_is_not_whole_is_not_named(
    place: World, ids: list[str], publisher: Publisher
) -> None:
    """Gone, or of another size: the ledger says why, and takes it back when it is there again."""
    gone, longer, *_ = uris = await place_files(place, ids[:3])
    (place.media / gone).unlink()
    (place.media / longer).write_bytes(b"too long" * 100)
    assert await publisher.publish_all() == Counts(checked=3, written=1, not_publishable=2)
    assert playable(place.catalog, place.media) == [ids[2]]
    rows = await ledger(place)
    assert [rows[id_]["not_playable"] for id_ in ids[:2]] == [publishing.NO_FILE] * 2
    (place.media / gone).write_bytes((place.media / uris[2]).read_bytes())
    await publisher.publish_all()
    row = (await ledger(place))[ids[0]]
    assert (row["not_playable"], row["published_at"] is not None) == (None, True)


async def test_a_track_that_the_catalog_lacks_says_so(
    place: World, ids: list[str], publisher: Publisher
) -> None:
    """It is not published, and its reason is in the ledger."""
    unknown = track_id(99)
    await place_files(place, [ids[0], unknown])
    assert await publisher.publish_all() == Counts(checked=2, written=1, not_publishable=1)
    row = (await ledger(place))[unknown]
    assert (row["not_playable"], row["published_at"]) == (publishing.NO_TRACK, None)


async def test_what_changes_meanwhile_is_left_alone(
    place: World, ids: list[str], server: CatalogServer
) -> None:
    """The value that was read is compared in the write itself."""
    await place_files(place, ids[:1])
    catalog = CatalogFile(place.catalog)
    try:
        found = await catalog.find(ids[:1], of=None)
        [entry] = found.entries.values()
        set_uri(place.catalog, ids[0], "what/the/server/wrote.ogg")
        change = Change(
            rowid=entry.rowid, track_id=entry.track_id, old_uri=entry.audio_uri, new_uri="ours"
        )
        assert await catalog.write([change], of=found.catalog) == set()
    finally:
        await catalog.close()
    assert named(place.catalog)[ids[0]] == "what/the/server/wrote.ogg"


async def test_nothing_is_lost_without_nats(world: World) -> None:
    """Must hold 5: no event tells of the files, and the ledger is enough."""
    with_server_catalog(world)
    ids = add_tracks(world, 10)
    await place_files(world, ids[:4])
    async with catalog_server(world.catalog):
        await world.nats.kill()
        world.nats.forget()
        await world.run("bridge", **WRITES)
        await eventually(lambda: _playable(world), lambda found: found == ids[:4], within_s=10)
        await place_files(world, ids[4:])
        await eventually(lambda: _playable(world), lambda found: found == ids, within_s=10)
        await world.nats.start()


async def _playable(world: World) -> list[str]:
    return playable(world.catalog, world.media)


async def test_several_bridges_do_no_harm(place: World, ids: list[str]) -> None:
    """Each may write every row; the values are the same, and nobody fails."""
    await place_files(place, ids)
    async with (
        catalog_server(place.catalog),
        publisher_of(place, busy_timeout_s=2) as one,
        publisher_of(place, busy_timeout_s=2) as other,
    ):
        both = await asyncio.gather(one.publish_all(), other.publish_all())
    assert sum(counts.written for counts in both) == 10
    assert playable(place.catalog, place.media) == ids


async def test_a_locked_catalog_is_waited_for(
    place: World, ids: list[str], publisher: Publisher, server: CatalogServer
) -> None:
    """Must hold 4: the server has its lock for longer than we wait; `bench publish` has 60 s."""
    await place_files(place, ids)
    await server.order("lock")
    # It reads, and what it has to write waits.
    assert await publisher.run_once() == 1
    for _ in range(3):
        assert isinstance(await refusal(publisher.run_once), DependencyDown)
    assert playable(place.catalog, place.media) == []
    await server.order("unlock")
    while await publisher.run_once():
        pass
    assert playable(place.catalog, place.media) == ids
    assert all(row["published_at"] for row in (await ledger(place)).values())


async def changes_for(catalog: CatalogFile, ids: list[str]) -> tuple[CatalogId, list[Change]]:
    """The catalog, and a new value for each of these tracks."""
    found = await catalog.find(ids, of=None)
    return found.catalog, [
        Change(rowid=entry.rowid, track_id=entry.track_id, old_uri=None, new_uri="a/path.ogg")
        for entry in found.entries.values()
    ]


async def test_the_server_s_writes_get_their_turn(place: World, server: CatalogServer) -> None:
    """Must hold 4: six connections write beside us, and none fails; `bench publish` measures."""
    catalog = CatalogFile(place.catalog, busy_timeout_s=30)
    try:
        of, changes = await changes_for(catalog, add_tracks(place, 9000, album=2))
        await server.order("begin_writes", writers=6, pause_s=0.05)
        for start in range(0, len(changes), ROWS_AT_ONCE):
            await catalog.write(changes[start : start + ROWS_AT_ONCE], of=of)
        noticed = await server.order("end_writes")
    finally:
        await catalog.close()
    assert noticed["writes"] > 20
    assert noticed["failed"] == 0
    # 0.07 s there. Here other tests have the processors, too; the server gives up after 5 s.
    assert noticed["longest_s"] < 2.5


async def test_transactions_are_small_and_far_between(
    place: World, ids: list[str], server: CatalogServer
) -> None:
    """At most 250 rows, and a pause of at least 20 ms after each."""
    assert (ROWS_AT_ONCE, PAUSE_S) == (250, 0.02)
    catalog = CatalogFile(place.catalog, pause_s=0.3)
    try:
        of, changes = await changes_for(catalog, ids)
        begun = time.monotonic()
        for change in changes[:3]:
            await catalog.write([change], of=of)
        assert time.monotonic() - begun >= 0.6
        with pytest.raises(AssertionError):
            await catalog.write(changes * 51, of=of)
    finally:
        await catalog.close()


async def test_a_name_without_its_file_is_found(place: World, ids: list[str]) -> None:
    """What the crash search checks at every death can fail; other programs may name others."""
    [uri] = await place_files(place, ids[:1])
    set_uri(place.catalog, ids[1], "audio/of/another/program.ogg")
    await named_files_are_whole(place)
    set_uri(place.catalog, ids[1], audio_uri(ids[1], "ogg"))
    with pytest.raises(AssertionError, match="not whole"):
        await named_files_are_whole(place)
    set_uri(place.catalog, ids[1], None)
    set_uri(place.catalog, ids[0], uri)
    (place.media / uri).write_bytes(b"cut")
    with pytest.raises(AssertionError, match="not whole"):
        await named_files_are_whole(place)


async def test_a_proper_swap_is_filled_again(place: World, ids: list[str]) -> None:
    """Must hold 5: server stopped, -wal and -shm gone, another file, server started."""
    await place_files(place, ids)
    async with publisher_of(place) as publisher:
        async with catalog_server(place.catalog):
            while await publisher.run_once():
                pass
            assert playable(place.catalog, place.media) == ids
        assert set(untouched(place.catalog)) == {"catalog.db"}
        other_catalog(place).replace(place.catalog)
        assert "-shm" in (await refusal(publisher.run_once)).detail
        async with catalog_server(place.catalog):
            while await publisher.run_once():
                pass
            assert playable(place.catalog, place.media) == ids[::-1]


def other_catalog(place: World, *, order: str = "DESC") -> Path:
    """Another catalog that has the same tracks, closed."""
    path = place.folder / "other.db"
    create_server_catalog(path)
    old, new = sqlite3.connect(place.catalog), sqlite3.connect(path)
    for table in ("albums", "tracks"):
        rows = old.execute(f"SELECT * FROM {table} ORDER BY rowid {order}").fetchall()
        marks = ", ".join("?" * len(rows[0]))
        new.executemany(
            f"INSERT INTO {table} VALUES (NULL, {marks[3:]})", [row[1:] for row in rows]
        )
    new.execute("UPDATE tracks SET audio_uri = NULL")
    new.commit()
    old.close()
    new.close()
    assert not path.with_name("other.db-wal").exists()
    return path


@pytest.mark.parametrize("case", ["not seen before", "seen", "seen by another process"])
async def test_a_swap_under_a_running_server_is_an_alarm(
    case: str, place: World, ids: list[str], server: CatalogServer
) -> None:
    """Must hold 5: mv over the open file; the new one, and the old -wal, stay byte for byte."""
    await place_files(place, ids[:5])
    async with AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(publisher_of(place))
        if case != "not seen before":
            await publisher.publish_all()
            await place_files(place, ids[5:])
        # In the same order, so that its pages and those of the old -wal fit together.
        other_catalog(place, order="ASC").replace(place.catalog)
        before = untouched(place.catalog)
        assert bool(before["catalog.db-wal"][0]) is (case != "not seen before")
        if case == "seen by another process":
            publisher = await stack.enter_async_context(publisher_of(place))
        if case != "not seen before":
            # SQLite's locks do not tell its process from a server's.
            await stack.enter_async_context(reader(place.catalog))
        refused = await refusal(publisher.publish_all)
        assert isinstance(refused, Misconfigured)
        assert "remove catalog.db-wal" in refused.detail
        assert untouched(place.catalog) == before


@asynccontextmanager
async def reader(catalog: Path) -> AsyncIterator[None]:
    """Another process that reads whatever is at this path, as ingest does."""
    script = (
        "import sqlite3, sys;"
        "c = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True);"
        "c.execute('SELECT count(*) FROM sqlite_master').fetchone();"
        "print('open', flush=True); sys.stdin.read()"
    )
    process = await asyncio.create_subprocess_exec(
        *("python3", "-c", script, str(catalog)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert await process.stdout.readline() == b"open\n"
    yield
    process.stdin.close()
    await process.wait()


@pytest.mark.parametrize("runs_again", [False, True], ids=["server down", "server runs again"])
async def test_a_file_beside_the_wal_of_a_killed_server_is_an_alarm(
    runs_again: bool, place: World, ids: list[str], server: CatalogServer
) -> None:
    """Must hold 5: the pages of the -wal are not of this file. The operator is told what to do."""
    await place_files(place, ids)
    other = other_catalog(place)
    await server.order("edit", track_id=ids[0])
    await server.kill()
    other.replace(place.catalog)
    async with AsyncExitStack() as stack:
        if runs_again:
            await stack.enter_async_context(catalog_server(place.catalog))
        before = database_and_wal(place.catalog)
        assert before["catalog.db-wal"]
        publisher = await stack.enter_async_context(publisher_of(place))
        refused = await refusal(publisher.publish_all)
        assert isinstance(refused, Misconfigured)
        assert "remove catalog.db-wal" in refused.detail
        assert database_and_wal(place.catalog) == before


def database_and_wal(catalog: Path) -> dict[str, bytes]:
    """Without the -shm, which the first reader makes again."""
    return {name: found[0] for name, found in untouched(catalog).items() if "-shm" not in name}


async def test_without_a_server_nothing_is_written(place: World, ids: list[str]) -> None:
    """Unless the setting says that none will run."""
    await place_files(place, ids)
    before = untouched(place.catalog)
    async with publisher_of(place) as publisher:
        refused = await refusal(publisher.publish_all)
        assert isinstance(refused, DependencyDown)
        assert "BRIDGE_SERVER_STOPPED" in refused.detail
    assert untouched(place.catalog) == before
    async with publisher_of(place, server_stopped=True) as publisher:
        await publisher.publish_all()
    assert playable(place.catalog, place.media) == ids
    assert untouched(place.catalog)["catalog.db"] == before["catalog.db"]


async def test_our_commits_leave_the_database_file_still(
    place: World, ids: list[str], publisher: Publisher, server: CatalogServer
) -> None:
    """It is copied for backups between the server's checkpoints: only the -wal grows."""
    add_tracks(place, 9000, album=2)
    while len(untouched(place.catalog)["catalog.db-wal"][0]) < _CHECKPOINT_BYTES:
        await server.order("edit_all")
    await place_files(place, ids)
    before = untouched(place.catalog)
    await publisher.publish_all()
    after = untouched(place.catalog)
    assert after["catalog.db"] == before["catalog.db"]
    assert len(after["catalog.db-wal"][0]) > len(before["catalog.db-wal"][0])


async def test_a_catalog_without_the_column_says_to_upgrade(place: World) -> None:
    """Older servers look for files by their names."""
    place.catalog.unlink()
    with sqlite3.connect(place.catalog) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE tracks (id TEXT, name TEXT)")
    connection.close()
    await place_files(place, [track_id(1)])
    async with catalog_server(place.catalog), publisher_of(place) as publisher:
        refused = await refusal(publisher.publish_all)
    assert isinstance(refused, Misconfigured)
    assert "upgrade the catalog server" in refused.detail


async def test_sync_by_hand(place: World, ids: list[str], server: CatalogServer) -> None:
    """One pass, in a line or as JSON; NATS_URL is not needed."""
    await place_files(place, [*ids, track_id(99)])
    await server.order("edit", track_id=ids[0])
    env = {name: place.env[name] for name in ("DATABASE_URL", "CATALOG_DB", "MEDIA_PATH")}
    refused = await command("bridge", "sync", env=env)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("BRIDGE_CATALOG_WRITE is not set")
    assert playable(place.catalog, place.media) == []
    done = await command("bridge", "sync", env=env | WRITES)
    assert done.code == 0, done
    [line] = done.lines
    assert line == (
        "11 files checked, 10 written to the catalog, 0 named there already,"
        " 1 that cannot be: `stats` says why"
    )
    assert playable(place.catalog, place.media) == ids
    again = await command("bridge", "sync", "--json", env=env | WRITES)
    assert json.loads(again.out) == vars(Counts(checked=11, named=10, not_publishable=1))


async def test_the_difference_has_its_reason(world: World) -> None:
    """Placed, published and playable in `admin/stats`, in `stats` and in /metrics."""
    with_server_catalog(world)
    ids = add_tracks(world, 4)
    await place_files(world, [*ids, track_id(99)])
    async with catalog_server(world.catalog), publisher_of(world) as publisher:
        await publisher.publish_all()
        await place_files(world, [track_id(98)])
        await world.execute(
            "UPDATE media_files SET playable_at = now() WHERE track_id = $1", ids[0]
        )
    running = await world.run("ingest")
    assert running.api is not None
    stats = (await running.api.get("/v1/download/admin/stats")).json()
    assert stats["library"] == {
        "placed": 6,
        "published": 4,
        "playable": 1,
        "not_playable": [
            {"reason": NOT_CONFIRMED, "count": 3},
            {"reason": NOT_PUBLISHED, "count": 1},
            {"reason": publishing.NO_TRACK, "count": 1},
        ],
    }
    assert words.stats(stats)[2:4] == [
        "Files: placed 6, published 4, playable 1.",
        f"    3 {NOT_CONFIRMED}",
    ]
    await Figures(running.app.database).run_once()
    [files, reasons] = [next(iter(metric.collect())) for metric in (FILES, FILES_NOT_PLAYABLE)]
    assert {s.labels["state"]: s.value for s in files.samples} == {
        "placed": 6,
        "published": 4,
        "playable": 1,
    }
    assert {s.labels["reason"]: s.value for s in reasons.samples}[publishing.NO_TRACK] == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_a_catalog_of_another_user_says_whose_it_is(
    place: World, ids: list[str], server: CatalogServer
) -> None:
    """The image's server runs as root and makes files 644: the bridge must be root, or they 666."""
    for folder in (place.folder, *place.folder.parents):
        if folder.stat().st_mode & 0o005 != 0o005 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    catalog = CatalogFile(place.catalog)
    os.seteuid(65534)
    try:
        refused = await refusal(catalog.check)
    finally:
        os.seteuid(0)
        await catalog.close()
    assert isinstance(refused, Misconfigured)
    for part in ("uid 65534", "belongs to uid 0", "mode 644", "chmod 666"):
        assert part in refused.detail
