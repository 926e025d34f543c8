"""Scans: what is missing is found, queued only on request, and never before what users want."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from services.local.sample import add_album
from services.watchdog.adoption import Adoption
from services.watchdog.service import Watchdog
from services.watchdog.store import Findings, Store
from shared.app import App, make_app
from shared.bus.subjects import COMMAND_SCAN
from shared.catalog.sqlite import Catalog
from shared.db.media_root import MediaRoot
from shared.db.scans import start
from shared.errors import DependencyDown, Stale
from shared.events import ScanOrder
from shared.media.tools import find_tools
from shared.states import ScanState
from tests.support.audio import make_audio
from tests.support.ingest_helpers import (
    V1,
    ask,
    ask_album,
    assert_problem,
    dead,
    in_outbox,
    name_file,
    put_file,
    serve,
    unhandled,
)
from tests.support.world import World, album_id, eventually

MiB = 1024 * 1024
Report = dict[str, Any]


async def order(api: httpx.AsyncClient, what: str = "scan", **body: object) -> str:
    """Order a scan; returns its id."""
    answer = await api.post(f"{V1}/admin/{what}", json=body)
    assert answer.status_code == 202, answer.text
    scan_id: str = answer.json()["scan_id"]
    assert answer.headers["location"] == f"{V1}/admin/scan/{scan_id}"
    return scan_id


async def report(api: httpx.AsyncClient, scan_id: str) -> Report:
    """The report of a scan as it is now."""
    answer = await api.get(f"{V1}/admin/scan/{scan_id}")
    assert answer.status_code == 200, answer.text
    found: Report = answer.json()
    return found


async def ended(api: httpx.AsyncClient, scan_id: str, *, within_s: float = 30) -> Report:
    """The report of a scan when it has ended."""
    return await eventually(
        lambda: report(api, scan_id),
        lambda found: found["finished_at"] is not None,
        within_s=within_s,
    )


@pytest.fixture
async def app(world: World) -> AsyncIterator[App]:
    """What a watchdog of the test's own is made of."""
    made = make_app(world.settings(["watchdog"]), name="test")
    yield made
    for close in (*made.closers, made.database.close):
        await close()


def watchdog(world: World, app: App, *, page_size: int = 2, turn_s: float = 0) -> Watchdog:
    """A watchdog that does one small page a turn."""
    catalog = Catalog(world.catalog)
    app.closers.append(catalog.close)
    store, root = Store(app.database, lease_s=60), MediaRoot(app.database, world.media)
    return Watchdog(
        store=store,
        catalog=catalog,
        root=root,
        announcer=app.announcer,
        health=app.health,
        adoption=Adoption(
            store=store, root=root, announcer=app.announcer, tools=find_tools, tolerance_s=6
        ),
        page_size=page_size,
        turn_s=turn_s,
    )


async def test_a_dry_run_counts_and_queues_nothing(world: World) -> None:
    """Recorded, unrecorded, queued and missing tracks are told apart; a dry run changes nothing."""
    tracks = world.add_album(1, 8)
    song = make_audio(world.folder / "song.flac", seconds=8)
    for track in tracks[:3]:
        put_file(world, track, song)
    api = await serve(world, "ingest", "watchdog")
    await ask(api, tracks[0])
    cut_short = put_file(world, tracks[1], song)
    await ask(api, tracks[1])
    cut_short.write_bytes(song.read_bytes()[:1000])
    await ask(api, tracks[3])
    found = await ended(api, await order(api))
    counts = {
        name: found[name]
        for name in ("total", "scanned", "present", "unrecorded", "in_queue", "missing", "queued")
    }
    # tracks[1] is recorded, but no longer what it was: it is missing.
    assert counts == {
        "total": 8, "scanned": 8, "present": 1, "unrecorded": 1, "in_queue": 1, "missing": 5,
        "queued": 0,
    }  # fmt: skip
    assert (found["state"], found["mode"], found["is_clean"]) == ("done", "dry_run", False)
    assert {entry["track_id"] for entry in found["sample"]} == {tracks[1], *tracks[4:]}
    assert len(await world.items()) == 3
    assert await world.rows("SELECT 1 FROM requests WHERE kind = 'scan'") == []


async def test_a_clean_catalog_is_told_as_clean(world: World) -> None:
    """Nothing missing, and an empty catalog: done, and clean."""
    api = await serve(world, "ingest", "watchdog")
    found = await ended(api, await order(api))
    assert (found["state"], found["scanned"], found["is_clean"]) == ("done", 0, True)


async def test_an_order_that_is_none_starts_nothing(world: World) -> None:
    """L-13: bad JSON, a misspelt field or scope: 422 that names it, and nothing queued."""
    world.add_album(1, 1)
    api = await serve(world, "ingest", "watchdog")
    bodies = [
        b"{", b"[]", b"null", b'"all"', b"\xff\xfe", b"[" * 50_000, b"{}" * 40_000,
        b'{"mode":"ACTUAL"}', b'{"scope":"everything"}', b'{"scope":"ALL"}', b'{"limitt":5}',
        b'{"scope":"album"}', b'{"album_id":"abcdef"}', b'{"scope":"album","album_id":"../../x"}',
        b'{"scope":"album","album_id":"abc\\u0000def"}', b'{"scope":"album","album_id":7}',
        b'{"limit":0}', b'{"limit":-1}', b'{"limit":"5"}', b'{"limit":1.5}', b'{"limit":true}',
        b'{"limit":99999999999999999999}', b'{"limit":1000001}', b'{"min_popularity":101}',
        b'{"min_popularity":-1}', b'{"min_popularity":null,"x":1}', b'{"\\ud800":1}',
        b'{"limit":' + b"9" * 5000 + b"}",
    ]  # fmt: skip
    for what in ("scan", "queue-all"):
        for body in bodies:
            answer = await api.post(f"{V1}/admin/{what}", content=body)
            assert_problem(answer, 422, "invalid-request")
    assert await world.rows("SELECT 1 FROM scans") == []
    assert await world.items() == []
    assert_problem(await api.get(f"{V1}/admin/scan/no-such-scan"), 404, "unknown")


async def test_one_scan_at_a_time(world: World) -> None:
    """A second scan while one waits is 409 and names it; of ten at once one is taken."""
    world.add_album(1, 1)
    api = await serve(world)  # no watchdog: what is ordered waits
    answers = await asyncio.gather(
        *(api.post(f"{V1}/admin/{what}") for what in ["scan", "queue-all"] * 5)
    )
    taken = [answer.json()["scan_id"] for answer in answers if answer.status_code == 202]
    assert len(taken) == 1
    for answer in answers:
        if answer.status_code != 202:
            assert_problem(answer, 409, "conflict")
            assert taken[0] in answer.json()["detail"]
    assert (await report(api, taken[0]))["state"] == "waiting"
    await world.run("watchdog")
    assert (await ended(api, taken[0]))["state"] == "done"
    await ended(api, await order(api))


async def test_a_scan_can_be_cancelled(world: World) -> None:
    """F12: also one whose catalog cannot be read, which says so; then the next one may begin."""
    world.add_album(1, 1)
    api = await serve(world)
    scan_id = await order(api)
    away = world.catalog.rename(world.catalog.with_name("away.db"))
    await world.run("watchdog")
    stuck = await eventually(lambda: report(api, scan_id), lambda found: found["problem"])
    assert "correct CATALOG_DB" in stuck["problem"]
    answer = await api.delete(f"{V1}/admin/scan/{scan_id}")
    assert answer.status_code == 200, answer.text
    cancelled = answer.json()
    assert (cancelled["state"], cancelled["problem"]) == ("cancelled", "cancelled by admin")
    assert cancelled["finished_at"] is not None
    assert_problem(await api.delete(f"{V1}/admin/scan/{scan_id}"), 409, "conflict")
    assert_problem(await api.delete(f"{V1}/admin/scan/no-such-scan"), 404, "unknown")
    away.rename(world.catalog)
    assert (await ended(api, await order(api)))["state"] == "done"
    assert (await report(api, scan_id))["state"] == "cancelled"


async def test_what_a_cancelled_scan_has_in_hand_is_not_queued(world: World, app: App) -> None:
    """Cancelled while a page is looked at: nothing more is queued, and nothing carries it on."""
    world.add_album(1, 6)
    api = await serve(world)
    scan_id = await order(api, "queue-all")
    dog = watchdog(world, app)
    await dog.run_once()
    assert (await report(api, scan_id))["queued"] == 2
    scan = await Store(app.database, lease_s=60).claim()
    assert scan is not None
    assert (await api.delete(f"{V1}/admin/scan/{scan_id}")).status_code == 200
    with pytest.raises(Stale):
        await dog.carry_on(scan)
    assert await dog.run_once() == 0
    assert len(await world.items()) == 2


async def test_queue_all_queues_what_is_missing_up_to_the_limit(world: World) -> None:
    """L-19, L-12: exactly the missing ones, no more than the limit, and the rest next time."""
    tracks = world.add_album(1, 10)
    song = make_audio(world.folder / "song.flac", seconds=8)
    placed = [put_file(world, track, song) for track in tracks[:4]]
    api = await serve(world, "ingest", "watchdog")
    await ask_album(api, album_id(1))
    await world.execute("DELETE FROM queue_items WHERE status = 'PENDING'")
    placed[0].unlink()
    first = await ended(api, await order(api, "queue-all", limit=3))
    assert (first["missing"], first["queued"], first["limit_reached"]) == (3, 3, True)
    second = await ended(api, await order(api, "queue-all"))
    assert (second["missing"], second["queued"], second["in_queue"]) == (4, 4, 3)
    assert (second["limit"], second["limit_reached"]) == (10_000, False)
    waiting = [item for item in await world.items() if item["status"] == "PENDING"]
    assert [item["track_id"] for item in waiting] == [tracks[0], *tracks[4:]]
    assert {item["priority"] for item in waiting} == {3}
    assert {item["requested_by_user_id"] for item in waiting} == {None}
    third = await ended(api, await order(api, "queue-all"))
    assert (third["missing"], third["queued"], third["is_clean"]) == (0, 0, True)


async def test_background_work_never_comes_before_a_users(world: World) -> None:
    """L-11: a hundred tracks of a scan, then two that a user wants: those are next, also when one
    is one of the hundred."""
    tracks = world.add_album(1, 100)
    [wanted] = world.add_album(2, 1)
    api = await serve(world, "ingest", "watchdog")
    await ended(api, await order(api, "queue-all", scope="album", album_id=album_id(1)))
    assert (await ask(api, wanted, "42")).json()["item"]["queue_position"] == 1
    joined = (await ask(api, tracks[99], "42")).json()
    assert joined["deduplicated"] is True
    # The second that this user asks for has the second of the user's turns.
    assert (joined["item"]["queue_position"], joined["item"]["priority"]) == (2, 2)
    assert (await ask(api, wanted, "42")).json()["item"]["queue_position"] == 1


async def test_a_scope_narrows_the_scan(world: World) -> None:
    """One album, partly present albums, and a least popularity look at nothing else."""
    first, second = world.add_album(1, 3), world.add_album(2, 3)
    song = make_audio(world.folder / "song.flac", seconds=8)
    name_file(world, second[0], "here/it is.flac", song)
    with closing(sqlite3.connect(world.catalog)) as catalog, catalog:
        catalog.execute("UPDATE tracks SET popularity = 90 WHERE id = ?", (first[0],))
        catalog.execute("UPDATE tracks SET popularity = 10 WHERE id = ?", (first[1],))
    api = await serve(world, "ingest", "watchdog")
    for body, missing in (
        ({"scope": "album", "album_id": album_id(1)}, first),
        ({"scope": "partial_albums"}, second[1:]),
        ({"min_popularity": 60}, first[:1]),
        ({"scope": "album", "album_id": album_id(1), "min_popularity": 40}, [first[0], first[2]]),
        ({"scope": "album", "album_id": "NoSuchAlbum"}, []),
    ):
        found = await ended(api, await order(api, "scan", **body))
        assert [entry["track_id"] for entry in found["sample"]] == missing, body
        assert found["missing"] == len(missing)
    found = await ended(api, await order(api, "queue-all", scope="partial_albums"))
    assert [item["track_id"] for item in await world.items()] == second[1:]


async def test_a_catalog_without_the_column_refuses_the_scope(world: World) -> None:
    """An old catalog that cannot tell what is popular says so; it does not scan everything."""
    world.add_album(1, 1)
    with closing(sqlite3.connect(world.catalog)) as catalog, catalog:
        catalog.execute("ALTER TABLE tracks DROP COLUMN popularity")
    api = await serve(world, "ingest", "watchdog")
    found = await ended(api, await order(api, "queue-all", min_popularity=5))
    assert found["state"] == "refused"
    assert "tracks.popularity" in found["problem"]
    assert await world.items() == []


async def test_an_unmounted_media_root_refuses_the_scan(world: World) -> None:
    """Without its mark the media root is not ours: nothing in it is called missing."""
    tracks = world.add_album(1, 3)
    api = await serve(world, "ingest", "watchdog")
    await ask(api, tracks[0])
    (world.media / ".incoming" / ".media-root").unlink()
    found = await ended(api, await order(api, "queue-all"))
    assert found["state"] == "refused"
    assert "mount" in found["problem"]
    assert (found["missing"], found["is_clean"]) == (0, False)
    assert len(await world.items()) == 1


async def test_a_media_root_that_goes_away_ends_the_scan(world: World, app: App) -> None:
    """Unmounted between two pages: what was queued stays, nothing more is."""
    world.add_album(1, 6)
    ours = watchdog(world, app)
    await start(app.database, ScanOrder(), queue=True, requested_by=None, scan_id="s")
    assert await ours.run_once() == 1
    (world.media / ".incoming" / ".media-root").unlink()
    assert await ours.run_once() == 1
    [row] = await world.rows("SELECT state, problem, queued FROM scans")
    assert (row["state"], row["queued"]) == ("refused", 2)
    assert len(await world.items()) == 2
    assert await ours.run_once() == 0


async def test_a_scan_whose_watchdog_dies_goes_on_from_its_cursor(world: World, app: App) -> None:
    """L-25: another watchdog takes over when the lease has run out, counts nothing twice, and the
    first one can change nothing any more."""
    tracks = world.add_album(1, 7)
    await start(app.database, ScanOrder(), queue=True, requested_by=None, scan_id="s")
    assert await watchdog(world, app).run_once() == 1
    store = Store(app.database, lease_s=60)
    dying = await store.claim()
    assert dying is not None
    assert (dying.after_rowid, dying.missing) == (2, 2)
    assert await watchdog(world, app).run_once() == 0, "the lease holds"
    await world.execute("UPDATE scans SET lease_until = now() - interval '1 s'")
    other = watchdog(world, app)
    while await other.run_once():
        pass
    [row] = await world.rows("SELECT state, scanned, missing, queued, after_rowid FROM scans")
    assert row == {"state": "done", "scanned": 7, "missing": 7, "queued": 7, "after_rowid": 7}
    assert [item["track_id"] for item in await world.items()] == tracks
    nothing = Findings(scanned=1, present=0, active=0, missing=0, unrecorded=0)
    with pytest.raises(Stale):
        async with app.database.transaction() as connection:
            await store.progress(connection, dying, 99, nothing)
    await store.end(dying, ScanState.REFUSED, "late")
    assert (await world.rows("SELECT state FROM scans"))[0]["state"] == "done"


async def test_a_catalog_that_goes_away_pauses_the_scan(world: World, app: App) -> None:
    """A dependency that is away holds the scan where it is, with the reason in its report."""
    world.add_album(1, 6)
    ours = watchdog(world, app)
    await start(app.database, ScanOrder(), queue=False, requested_by=None, scan_id="s")
    assert await ours.run_once() == 1
    hidden = world.catalog.rename(world.folder / "hidden.db")
    with pytest.raises(DependencyDown):
        await ours.run_once()
    [row] = await world.rows("SELECT state, problem, scanned FROM scans")
    assert (row["state"], row["scanned"]) == ("running", 2)
    assert str(world.catalog) in row["problem"]
    hidden.rename(world.catalog)
    await world.execute("UPDATE scans SET lease_until = now()")
    while await ours.run_once():
        pass
    [row] = await world.rows("SELECT state, problem, scanned FROM scans")
    assert row == {"state": "done", "problem": None, "scanned": 6}


async def test_a_stop_does_not_wait_for_the_scan(world: World) -> None:
    """A long scan is handed back at a stop, and the next watchdog has it at once."""
    _fill(world.catalog, 50_000)
    api = await serve(world)
    scan_id = await order(api)
    running = await world.run("watchdog")
    await eventually(lambda: report(api, scan_id), lambda found: found["scanned"] > 0)
    await asyncio.wait_for(running.end(), 5)
    before = await report(api, scan_id)
    assert before["state"] == "running"
    assert before["scanned"] < 50_000
    await world.run("watchdog")
    after = await ended(api, scan_id)
    assert (after["state"], after["scanned"], after["missing"]) == ("done", 50_000, 50_000)


async def test_a_large_catalog_is_scanned_in_bounded_memory(world: World) -> None:
    """L-19: 100,000 tracks: progress shows while it runs, the report stays small, and the process
    does not grow with the catalog."""
    count = 100_000
    _fill(world.catalog, count)
    api = await serve(world, "ingest", "watchdog")
    process, seen, rss = psutil.Process(), set(), [0]
    scan_id = await order(api)

    async def look() -> Report:
        found = await report(api, scan_id)
        seen.add(found["scanned"])
        rss.append(process.memory_info().rss)
        if rss[0] == 0 and found["scanned"] > 0:
            rss[0] = rss[-1]
        return found

    found = await eventually(look, lambda r: r["finished_at"] is not None, within_s=120)
    assert (found["scanned"], found["missing"], found["total"]) == (count, count, count)
    assert len(seen) > 3, "progress is visible"
    assert len(found["sample"]) < 100
    # All of them at once take over 50 MB.
    assert max(rss) - rss[0] < 25 * MiB, f"grew by {(max(rss) - rss[0]) / MiB:.0f} MiB"


async def test_scans_over_nats(world: World) -> None:
    """`command.scan` orders a scan once however often it comes; one too many is told so; without
    "queue": true it is a dry run; garbage is put aside."""
    world.add_album(1, 2)
    api = await serve(world)  # no watchdog yet
    command = {"v": 1, "request_id": "scan-1", "scope": "all"}
    await world.publish(COMMAND_SCAN, command)
    for _ in range(3):
        await world.publish(COMMAND_SCAN, json.dumps(command).encode())
    await world.publish(COMMAND_SCAN, b"garbage")
    await world.run("watchdog")
    found = await eventually(lambda: _report_or_none(api, "scan-1"), _is_over)
    assert found is not None
    assert (found["mode"], found["missing"], found["queued"]) == ("dry_run", 2, 0)
    assert (await dead(world, 1))[0].data == b"garbage"
    await world.publish(COMMAND_SCAN, json.dumps(command).encode())
    await world.publish(
        COMMAND_SCAN, {"v": 1, "request_id": "scan-2", "user_id": "42", "queue": True, "limit": 1}
    )
    await eventually(lambda: _report_or_none(api, "scan-2"), _is_over)
    assert await eventually(lambda: unhandled(world), lambda left: left == 0) == 0
    assert len(await world.rows("SELECT 1 FROM scans")) == 2
    assert len(await world.items()) == 1


async def test_a_scan_over_nats_while_one_runs_is_rejected_with_an_event(world: World) -> None:
    """No client waits for a scan that will not come."""
    api = await serve(world)
    first = await order(api)
    await world.execute("UPDATE scans SET state = 'running', lease_until = now() + interval '1 h'")
    await world.run("watchdog")
    await world.publish(COMMAND_SCAN, {"v": 1, "request_id": "one-too-many"})
    [told] = await eventually(lambda: in_outbox(world, "request.rejected"))
    assert (told["request_id"], told["problem"]) == ("one-too-many", "Conflict")
    assert first in told["reason"]


async def _report_or_none(api: httpx.AsyncClient, scan_id: str) -> Report | None:
    answer = await api.get(f"{V1}/admin/scan/{scan_id}")
    return answer.json() if answer.status_code == 200 else None


def _is_over(found: Report | None) -> bool:
    return found is not None and found["finished_at"] is not None


def _fill(path: Path, count: int) -> None:
    """A catalog of many tracks, copied from one, made in a moment."""
    track = {"id": "abcdef", "name": "Song", "duration_ms": 8000}
    add_album(path, album_id=album_id(1), name="A", artist="B", tracks=[track])
    with closing(sqlite3.connect(path)) as catalog, catalog:
        catalog.execute(
            "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO tracks (id, name, album_rowid, track_number, popularity, disc_number,"
            " duration_ms, explicit, language)"
            " SELECT printf('T%021d', i), 'Song ' || i, 1, i, 50, 1, 8000, 0, 'zxx' FROM n",
            (count,),
        )
        catalog.execute("INSERT INTO track_artists SELECT rowid, 1, 0 FROM tracks WHERE rowid > 1")
