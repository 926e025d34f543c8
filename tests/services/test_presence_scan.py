"""Scans know the files that the catalog names, and record them with `adopt`."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.local.sample import add_album
from shared.bus.subjects import COMMAND_SCAN
from shared.present import Present, present
from tests.support.audio import cut, make_audio
from tests.support.ingest_helpers import (
    V1,
    ask,
    assert_problem,
    in_outbox,
    name_file,
    put_file,
    serve,
    servers_uri,
)
from tests.support.world import Row, World, album_id, eventually, track_id

_LEDGER = "SELECT track_id, audio_uri, adopted, item_id FROM media_files ORDER BY track_id"


@pytest.fixture
def song(world: World) -> Path:
    """A song as long as the tracks of `add_album`."""
    return make_audio(world.folder / "song.flac", seconds=8)


async def scanned(api: httpx.AsyncClient, **body: object) -> Row:
    """The report of a scan when it has ended."""
    answer = await api.post(f"{V1}/admin/scan", json=body)
    assert answer.status_code == 202, answer.text
    return await ended(api, answer.json()["scan_id"])


async def ended(api: httpx.AsyncClient, scan_id: str) -> Row:
    """The report of this scan when it has ended."""

    async def report() -> Row:
        found: Row = (await api.get(f"{V1}/admin/scan/{scan_id}")).json()
        return found

    found = await eventually(report, lambda row: row["finished_at"] is not None, within_s=60)
    assert found["state"] == "done", found
    return found


def counts(report: Row) -> dict[str, int]:
    """The counts that are not 0."""
    names = (
        "scanned", "present", "in_queue", "missing", "unrecorded", "to_adopt", "adopted",
        "broken", "refused", "queued",
    )  # fmt: skip
    return {name: report[name] for name in names if report[name]}


def _servers_files(world: World, count: int, songs: Sequence[Path]) -> list[str]:
    """Tracks in the catalog server's two layouts, their files links to one of each kind."""
    rows = [
        {"id": track_id(n), "name": f"Song {n}", "duration_ms": 1000, "track_number": n}
        for n in range(1, count + 1)
    ]
    add_album(world.catalog, album_id=album_id(1), name="A", artist="B", tracks=rows)
    uris = {}
    for n, row in enumerate(rows):
        track, source = str(row["id"]), songs[n % len(songs)]
        ext = source.suffix[1:]
        uri = servers_uri(track[::-1], ext) if n % 2 else f"audio/{track}.{ext}"
        path = world.media / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, path)
        uris[track] = uri
    with closing(sqlite3.connect(world.catalog)) as catalog, catalog:
        values = [(uri, track) for track, uri in uris.items()]
        catalog.executemany("UPDATE tracks SET audio_uri = ? WHERE id = ?", values)
    return list(uris)


# `python -m bench.presence` does the same with 1,000 and with more.
_FILES = 100


async def test_files_of_the_server_are_present(world: World) -> None:
    """Two levels and flat: nothing is missing, requests are answered 200, nothing is searched for,
    and the adopt scan records all of them, once."""
    songs = [
        make_audio(world.folder / "song.ogg", seconds=1, codec="vorbis"),
        make_audio(world.folder / "song.mp3", seconds=1, codec="mp3"),
    ]
    tracks = _servers_files(world, _FILES, songs)
    api = await serve(world, "ingest", "watchdog", "ticketer")
    before = _state(world.catalog)
    found = await scanned(api)
    assert counts(found) == {"scanned": _FILES, "present": _FILES, "to_adopt": _FILES}
    assert found["is_clean"] is True
    early, late = tracks[::10], tracks[5::10]
    answers = await asyncio.gather(*(ask(api, track) for track in early))
    assert {answer.status_code for answer in answers} == {200}
    found = await scanned(api, adopt=True)
    adopted = _FILES - len(early)
    assert counts(found) == {"scanned": _FILES, "present": _FILES, "adopted": adopted}
    [row] = await world.rows("SELECT count(*) AS n, count(*) FILTER (WHERE adopted) AS a"
                             "  FROM media_files")  # fmt: skip
    assert (row["n"], row["a"]) == (_FILES, _FILES)
    answers = await asyncio.gather(*(ask(api, track) for track in late))
    assert {answer.status_code for answer in answers} == {200}
    assert counts(await scanned(api, adopt=True)) == {"scanned": _FILES, "present": _FILES}
    assert world.standin.tickets() == []
    assert _state(world.catalog) == before, "nothing is written to the catalog"
    assert {item["status"] for item in await world.items()} == {"COMPLETED"}


def _state(catalog: Path) -> tuple[bytes, int, list[str]]:
    """The catalog's content, its time, and what lies beside it."""
    beside = [path.name for path in catalog.parent.glob("catalog.db*")]
    return catalog.read_bytes(), catalog.stat().st_mtime_ns, beside


async def test_each_track_counts_as_what_it_is(world: World, song: Path) -> None:
    """Named, refused, broken, under our own name, damaged: a dry run decodes none of them; the
    adopt scan records what is whole and says what is broken."""
    named, outside, broken, own, missing, queued = world.add_album(1, 6)
    name_file(world, named, servers_uri(named), song)
    name_file(world, outside, f"../{outside}.flac")
    cut(name_file(world, broken, servers_uri(broken), song), song)
    put_file(world, own, song)
    api = await serve(world, "ingest", "watchdog")
    await ask(api, queued)
    name_file(world, queued, servers_uri(queued), song)
    expected = {
        "scanned": 6, "present": 2, "in_queue": 1, "missing": 2, "unrecorded": 1, "to_adopt": 4,
        "refused": 1,
    }  # fmt: skip
    assert counts(await scanned(api)) == expected
    assert await world.rows("SELECT 1 FROM media_files") == []
    found = await scanned(api, adopt=True)
    assert counts(found) == {
        "scanned": 6, "present": 3, "missing": 2, "adopted": 3, "broken": 1, "refused": 1
    }  # fmt: skip
    assert [row["track_id"] for row in found["sample"]] == [outside, missing]
    # L-45: the item that waited is completed with the file.
    [item] = await world.items()
    assert (item["track_id"], item["status"]) == (queued, "COMPLETED")
    ledger = {row["track_id"]: row for row in await world.rows(_LEDGER)}
    assert ledger.keys() == {named, own, queued}
    assert [ledger[each]["adopted"] for each in (named, own, queued)] == [True, False, True]
    assert [ledger[each]["item_id"] for each in (named, own, queued)] == [None, None, item["id"]]
    # The catalog names one already; the other is told of, and that of the item.
    ready = {event["track_id"]: event["item_id"] for event in await in_outbox(world, "audio.ready")}
    assert ready == {own: None, queued: item["id"]}
    problems = await world.rows("SELECT track_id, kind FROM presence_problems ORDER BY track_id")
    assert [tuple(row.values()) for row in problems] == [(outside, "outside"), (broken, "broken")]
    assert counts(await scanned(api)) == {
        "scanned": 6, "present": 3, "missing": 2, "broken": 1, "refused": 1
    }  # fmt: skip


async def test_a_broken_file_is_queued_only_where_it_is_replaced(world: World, song: Path) -> None:
    """queue-all leaves it alone, and with REPLACE_BROKEN=true queues it."""
    [track] = world.add_album(1, 1)
    cut(name_file(world, track, servers_uri(track), song), song)
    for replace, missing in (("false", 0), ("true", 1)):
        running = await world.run("ingest", "watchdog", REPLACE_BROKEN=replace)
        assert running.api is not None
        await scanned(running.api, adopt=True)
        answer = await running.api.post(f"{V1}/admin/queue-all")
        report = await ended(running.api, answer.json()["scan_id"])
        assert (report["broken"], report["missing"], report["queued"]) == (1, missing, missing)
        await running.end()
        world.running.remove(running)


async def test_problems_end_with_their_cause(world: World, song: Path) -> None:
    """Repaired, set to NULL, or deleted from the catalog: the next scan forgets it."""
    repaired, null, deleted, stays = world.add_album(1, 4)
    cut(name_file(world, repaired, servers_uri(repaired), song), song)
    for track in (null, deleted, stays):
        name_file(world, track, "/etc/hostname")
    api = await serve(world, "ingest", "watchdog")
    assert counts(await scanned(api, adopt=True))["broken"] == 1
    assert len(await world.rows("SELECT 1 FROM presence_problems")) == 4
    name_file(world, repaired, servers_uri(repaired), song)
    name_file(world, null, None)
    with closing(sqlite3.connect(world.catalog)) as catalog, catalog:
        catalog.execute("DELETE FROM tracks WHERE id = ?", (deleted,))
    await scanned(api, adopt=True)
    problems = await world.rows("SELECT track_id FROM presence_problems")
    assert [row["track_id"] for row in problems] == [stays]


async def test_a_scan_publishes_again_what_is_named_no_more(world: World, song: Path) -> None:
    """NULL again, or a path that leads nowhere: the ledger's file is to be published."""
    tracks = world.add_album(1, 3)
    for track in tracks:
        name_file(world, track, servers_uri(track), song)
    api = await serve(world, "ingest", "watchdog")
    await scanned(api, adopt=True)
    await world.execute("UPDATE media_files SET published_at = now(), album_id = NULL")
    name_file(world, tracks[0], None)
    name_file(world, tracks[1], "gone.flac")
    assert counts(await scanned(api)) == {"scanned": 3, "present": 3}
    rows = await world.rows("SELECT track_id, album_id FROM media_files WHERE published_at IS NULL")
    assert {row["track_id"] for row in rows} == set(tracks[:2])
    assert {row["album_id"] for row in rows} == {album_id(1)}


async def test_partial_albums_are_told_by_their_files(world: World, song: Path) -> None:
    """By the ledger and by the catalog's paths; a whole album, an empty one, and one whose path
    leads nowhere are not partial, whatever the catalog's own flag says."""
    by_ledger, named, whole, nothing, nowhere = (world.add_album(n, 2) for n in range(1, 6))
    put_file(world, by_ledger[0], song)
    name_file(world, named[1], "flat.flac", song)
    for track in whole:
        name_file(world, track, servers_uri(track), song)
    name_file(world, nowhere[0], "gone.flac")
    with closing(sqlite3.connect(world.catalog)) as catalog, catalog:
        catalog.execute("UPDATE albums SET album_availability = 'partial'")
    api = await serve(world, "ingest", "watchdog")
    assert (await ask(api, by_ledger[0])).status_code == 200
    found = await scanned(api, scope="partial_albums")
    assert counts(found) == {"scanned": 4, "present": 2, "missing": 2, "to_adopt": 1}
    assert {row["track_id"] for row in found["sample"]} == {by_ledger[1], named[0]}
    with closing(sqlite3.connect(world.catalog)) as catalog, catalog:
        catalog.execute("ALTER TABLE tracks DROP COLUMN audio_uri")
        catalog.execute("DROP INDEX idx_albums_availability")
        catalog.execute("ALTER TABLE albums DROP COLUMN album_availability")
    # Another file, so that it is opened again.
    shutil.copy(world.catalog, world.folder / "older.db")
    (world.folder / "older.db").replace(world.catalog)
    found = await scanned(api, scope="partial_albums")
    assert {row["track_id"] for row in found["sample"]} == {by_ledger[1]}
    assert nothing


async def test_adopt_is_an_order_of_a_scan(world: World, song: Path) -> None:
    """Not of queue-all; one scan at a time, over NATS too."""
    tracks = world.add_album(1, 2)
    name_file(world, tracks[0], servers_uri(tracks[0]), song)
    api = await serve(world)
    both = await api.post(f"{V1}/admin/queue-all", json={"adopt": True})
    assert_problem(both, 422, "invalid-request")
    assert "not both" in both.json()["detail"]
    first = await api.post(f"{V1}/admin/scan", json={"adopt": True})
    second = await api.post(f"{V1}/admin/scan", json={"adopt": True})
    assert_problem(second, 409, "conflict")
    await world.run("watchdog")
    await ended(api, first.json()["scan_id"])
    name_file(world, tracks[1], servers_uri(tracks[1]), song)
    command = {"v": 1, "request_id": "s", "adopt": True}
    await world.publish(COMMAND_SCAN, command | {"request_id": "both", "queue": True})
    await world.publish(COMMAND_SCAN, command)
    await eventually(lambda: world.rows("SELECT 1 FROM scans WHERE id = 's'"))
    assert (await ended(api, "s"))["adopted"] == 1
    assert await world.rows("SELECT 1 FROM scans WHERE id = 'both'") == []


async def test_a_killed_adopt_scan_is_continued(world: World) -> None:
    """SIGKILL while it decodes: another watchdog records the rest, and each file counts once."""
    source = make_audio(world.folder / "song.ogg", seconds=1, codec="vorbis")
    tracks = _servers_files(world, 60, [source])
    api = await serve(world, LEASE_S="1")
    scan_id = (await api.post(f"{V1}/admin/scan", json={"adopt": True})).json()["scan_id"]
    process = await world.spawn("watchdog", LEASE_S="1")
    await eventually(lambda: world.rows("SELECT 1 FROM media_files"), within_s=60)
    process.kill()
    await process.wait()
    done = len(await world.rows("SELECT 1 FROM media_files"))
    assert 0 < done < len(tracks)
    await world.run("watchdog", LEASE_S="1")
    found = await ended(api, scan_id)
    assert counts(found) == {"scanned": 60, "present": 60, "adopted": 60}
    assert len(await world.rows(_LEDGER)) == 60


async def test_requests_and_an_adopt_scan_at_once(world: World) -> None:
    """Both want to record the same files: one row a track, and everybody is answered."""
    source = make_audio(world.folder / "song.ogg", seconds=1, codec="vorbis")
    tracks = _servers_files(world, 40, [source])
    api = await serve(world, "ingest", "watchdog")
    scanning = asyncio.create_task(scanned(api, adopt=True))
    line = asyncio.Semaphore(8)  # more of one user would be turned away while files are decoded

    async def asked(track: str) -> httpx.Response:
        async with line:
            return await ask(api, track)

    answers = await asyncio.gather(*(asked(track) for track in reversed(tracks)))
    scan = await scanning
    assert {answer.status_code for answer in answers} == {200}
    assert scan["missing"] == 0
    rows = await world.rows(_LEDGER)
    assert [row["track_id"] for row in rows] == tracks
    assert {item["status"] for item in await world.items()} <= {"COMPLETED"}
    ready = await in_outbox(world, "audio.ready")
    assert len(ready) == len(await world.items())


async def test_the_lease_is_kept_while_a_file_is_decoded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decode may take longer than LEASE_S: no other watchdog takes the scan meanwhile."""
    source = make_audio(world.folder / "song.ogg", seconds=1, codec="vorbis")
    [track] = _servers_files(world, 1, [source])

    async def slow(*args: Any, **named: Any) -> Present:
        [before] = await world.rows("SELECT lease_until, fence FROM scans")
        [after] = await eventually(
            lambda: world.rows("SELECT lease_until, fence FROM scans"),
            lambda rows: rows[0]["lease_until"] > before["lease_until"],
        )
        assert after["fence"] == before["fence"]
        return await present(*args, **named)

    monkeypatch.setattr("services.watchdog.adoption.present", slow)
    api = await serve(world, "ingest", "watchdog", LEASE_S="1")
    assert (await scanned(api, adopt=True))["adopted"] == 1
    assert [row["track_id"] for row in await world.rows(_LEDGER)] == [track]


async def test_a_cancelled_scan_records_nothing_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while a file is decoded: it is not recorded, and not counted."""
    source = make_audio(world.folder / "song.ogg", seconds=1, codec="vorbis")
    _servers_files(world, 1, [source])
    api = await serve(world)
    dropped = asyncio.Event()

    async def cancelled(*args: Any, **named: Any) -> Present:
        found = await present(*args, **named)
        await api.delete(f"{V1}/admin/scan/{scan_id}")
        dropped.set()
        return found

    monkeypatch.setattr("services.watchdog.adoption.present", cancelled)
    scan_id = (await api.post(f"{V1}/admin/scan", json={"adopt": True})).json()["scan_id"]
    running = await world.run("watchdog")
    await asyncio.wait_for(dropped.wait(), 30)
    # Its end waits for the turn in hand.
    await running.end()
    world.running.remove(running)
    assert await world.rows(_LEDGER) == []
    [row] = await world.rows("SELECT state, adopted FROM scans")
    assert row == {"state": "cancelled", "adopted": 0}
