"""A file that the catalog names is the track's, wherever it lies: it is verified, never doubled."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.support.audio import cut, make_audio
from tests.support.ingest_helpers import (
    V1,
    ask,
    ask_album,
    assert_problem,
    everything_below,
    in_outbox,
    message,
    name_file,
    put_file,
    send,
    serve,
    servers_uri,
)
from tests.support.world import Row, World, album_id, eventually, track_id

_LEDGER = "SELECT track_id, audio_uri, adopted, album_id, ext FROM media_files ORDER BY track_id"
_PROBLEMS = "SELECT track_id, audio_uri, kind, detail FROM presence_problems ORDER BY track_id"


@pytest.fixture
def song(world: World) -> Path:
    """A song as long as the tracks of `add_album`."""
    return make_audio(world.folder / "song.flac", seconds=8)


async def listed(api: httpx.AsyncClient, **params: str) -> list[Row]:
    """The presence problems as the API lists them."""
    answer = await api.get(f"{V1}/admin/presence-problems", params=params)
    assert answer.status_code == 200, answer.text
    items: list[Row] = answer.json()["items"]
    return items


@pytest.mark.parametrize("uri", ["{servers}", "flat {id}.wrong", "a/ü/{id}.flac"])
async def test_a_named_file_is_available(world: World, song: Path, uri: str) -> None:
    """Two levels, flat, any extension: 200, recorded under its real path, nothing is moved."""
    [track] = world.add_album(1, 1)
    uri = uri.format(id=track, servers=servers_uri(track))
    name_file(world, track, uri, song)
    before = everything_below(world.media)
    api = await serve(world)
    answer = await ask(api, track, "42")
    assert (answer.status_code, answer.json()["available"]) == (200, True), answer.text
    assert answer.json()["item"]["audio_uri"] == uri
    [row] = await world.rows(_LEDGER)
    assert row == {
        "track_id": track, "audio_uri": uri, "adopted": True, "album_id": album_id(1), "ext": "flac"
    }  # fmt: skip
    [ready] = await in_outbox(world, "audio.ready")
    assert (ready["audio_uri"], ready["user_ids"]) == (uri, ["42"])
    assert (await ask(api, track, "7")).status_code == 200
    assert len(await world.items()) == 1
    assert everything_below(world.media) == before


async def test_an_album_fetches_only_what_is_missing(world: World, song: Path) -> None:
    """Named, under our own name, recorded, broken and missing: each counts as what it is."""
    named, own, recorded, broken, missing, outside = world.add_album(1, 6)
    name_file(world, named, servers_uri(named), song)
    put_file(world, own, song)
    name_file(world, recorded, servers_uri(recorded), song)
    cut(name_file(world, broken, servers_uri(broken), song), song)
    name_file(world, outside, "../song.flac")
    api = await serve(world)
    assert (await ask(api, recorded)).status_code == 200
    body = (await ask_album(api, album_id(1), "42")).json()
    assert (body["queued"], body["already_available"], body["broken"]) == (2, 3, [broken])
    assert {item["track_id"] for item in body["items"]} == {missing, outside}
    told = [event["broken"] for event in await in_outbox(world, "request.accepted")]
    assert told == [[], [broken]]


@pytest.mark.parametrize("uri", ["../outside.flac", "/etc/hostname", "audio/link.flac", "audio"])
async def test_a_path_out_of_the_root_is_refused(world: World, song: Path, uri: str) -> None:
    """Absolute, `..`, a link out, a folder: reported, the track is missing; then it is over."""
    [track] = world.add_album(1, 1)
    (world.media / "audio").mkdir()
    (world.media / "audio" / "link.flac").symlink_to(song)
    name_file(world, track, uri)
    api = await serve(world)
    assert (await ask(api, track)).status_code == 202
    [problem] = await listed(api)
    assert (problem["track_id"], problem["audio_uri"], problem["kind"]) == (track, uri, "outside")
    assert problem["detail"]
    assert await listed(api, kind="broken") == []
    assert await listed(api, kind="outside") == [problem]
    wrong = await api.get(f"{V1}/admin/presence-problems?kind=x")
    assert_problem(wrong, 422, "invalid-request")
    stats = (await api.get(f"{V1}/admin/stats")).json()
    assert stats["presence_problems"] == {"outside": 1, "broken": 0, "second": 0}
    name_file(world, track, None)
    assert (await ask(api, track)).status_code == 202
    assert await listed(api) == []


async def test_a_broken_named_file_is_kept(world: World, song: Path) -> None:
    """409 that names the file and the setting, over NATS a rejection; once it is whole, 200."""
    [track] = world.add_album(1, 1)
    path = cut(name_file(world, track, servers_uri(track), song), song)
    api = await serve(world)
    refused = await ask(api, track)
    assert_problem(refused, 409, "conflict")
    assert servers_uri(track) in refused.json()["detail"]
    assert "REPLACE_BROKEN" in refused.json()["detail"]
    [problem] = await world.rows(_PROBLEMS)
    assert (problem["kind"], problem["audio_uri"]) == ("broken", servers_uri(track))
    await send(world, track, "42")
    [told] = await eventually(lambda: in_outbox(world, "request.rejected"))
    assert told["problem"] == "Conflict"
    assert await world.items() == []
    path.write_bytes(song.read_bytes())
    assert (await ask(api, track)).status_code == 200
    assert await world.rows("SELECT 1 FROM presence_problems") == []


async def test_a_broken_file_is_decoded_once(world: World, song: Path) -> None:
    """While it is the same, its problem is the answer, also after a restart of the service."""
    [track] = world.add_album(1, 1)
    path = cut(name_file(world, track, servers_uri(track), song), song)
    decoded = "SELECT checked_at FROM file_verdicts"
    seen: list[Row] = []
    for _ in range(2):
        api = await serve(world)
        assert_problem(await ask(api, track), 409, "conflict")
        seen = seen or await world.rows(decoded)
        assert_problem(await ask(api, track), 409, "conflict")
        assert len(seen) == 1
        assert await world.rows(decoded) == seen
    os.utime(path, (1, 1))
    assert_problem(await ask(api, track), 409, "conflict")
    assert seen[0] not in await world.rows(decoded)


async def test_a_broken_file_is_replaced_where_the_setting_says_so(
    world: World, song: Path
) -> None:
    """REPLACE_BROKEN=true: a new file under our own path, in the ledger; the old one stays."""
    [track] = world.add_album(1, 1)
    broken = cut(name_file(world, track, servers_uri(track), song), song)
    content = broken.read_bytes()
    api = await serve(
        world, "ingest", "ticketer", "poller", "fetcher_writer", REPLACE_BROKEN="true"
    )
    assert (await ask(api, track)).status_code == 202
    [item] = await world.until_ended(1)
    assert item["status"] == "COMPLETED"
    [row] = await world.rows(_LEDGER)
    assert (row["adopted"], row["audio_uri"].count("/")) == (False, 4)
    assert broken.read_bytes() == content
    assert (await ask(api, track)).status_code == 200
    [problem] = await world.rows(_PROBLEMS)
    assert problem["kind"] == "broken", "the catalog still names it"


async def test_a_damaged_file_of_ours_is_replaced_whatever_names_it(
    world: World, song: Path
) -> None:
    """L-08: what we placed and the catalog names is ours to fetch again; it needs no setting."""
    [track] = world.add_album(1, 1)
    placed = put_file(world, track, song)
    api = await serve(world)
    assert (await ask(api, track)).status_code == 200
    name_file(world, track, str(placed.relative_to(world.media)))
    cut(placed, song)
    assert (await ask(api, track)).status_code == 202
    assert await world.rows(_PROBLEMS) == []


async def test_a_second_file_is_reported_and_left(world: World, song: Path) -> None:
    """The ledger has a file, and the catalog names another: reported, nothing is changed."""
    first, second = world.add_album(1, 2)
    for track in (first, second):
        put_file(world, track, song)
    name_file(world, second, servers_uri(second), song)
    api = await serve(world)
    assert (await ask(api, first)).status_code == 200
    name_file(world, first, servers_uri(first), song)
    assert (await ask(api, first)).status_code == 200
    # Adopted where the catalog names it, although a file has the track's own name.
    assert (await ask(api, second)).status_code == 200
    assert (await ask(api, second)).status_code == 200
    ledger = {row["track_id"]: row for row in await world.rows(_LEDGER)}
    assert (ledger[first]["adopted"], ledger[second]["adopted"]) == (False, True)
    problems = await world.rows(_PROBLEMS)
    assert [(row["track_id"], row["kind"]) for row in problems] == [
        (first, "second"), (second, "second")
    ]  # fmt: skip
    assert len(world.placed()) == 4


async def test_null_again_is_published_again(world: World, song: Path) -> None:
    """The server's own edit sets `audio_uri` to NULL: the ledger's file is to be published."""
    [track] = world.add_album(1, 1)
    name_file(world, track, servers_uri(track), song)
    api = await serve(world)
    assert (await ask(api, track)).status_code == 200
    await world.execute("UPDATE media_files SET published_at = now(), playable_at = now()")
    assert (await ask(api, track)).status_code == 200
    published = "SELECT published_at IS NOT NULL AS yes FROM media_files"
    assert await world.rows(published) == [{"yes": True}]
    name_file(world, track, None)
    assert (await ask(api, track)).status_code == 200
    assert await world.rows(published) == [{"yes": False}]
    assert await world.rows("SELECT 1 FROM media_files WHERE playable_at IS NOT NULL") == []


async def test_a_catalog_without_the_column_knows_no_files(world: World, song: Path) -> None:
    """An older catalog: as before, and what was published stays so."""
    here, away = world.add_album(1, 2)
    put_file(world, here, song)
    with closing(sqlite3.connect(world.catalog)) as catalog, catalog:
        catalog.execute("ALTER TABLE tracks DROP COLUMN audio_uri")
    api = await serve(world)
    assert (await ask(api, here)).status_code == 200
    await world.execute("UPDATE media_files SET published_at = now()")
    body = (await ask_album(api, album_id(1))).json()
    assert (body["queued"], body["already_available"]) == (1, 1)
    assert len(await world.rows("SELECT 1 FROM media_files WHERE published_at IS NOT NULL")) == 1
    assert (await ask(api, away)).status_code == 202


async def test_ids_that_differ_by_case_are_two_tracks(world: World, song: Path) -> None:
    """Each has its own file; a path in another case leads to none."""
    upper, lower, wrong = ("A" * 22, "a" * 22, "b" * 22)
    world.add_album(1, 3)
    with closing(sqlite3.connect(world.catalog)) as catalog, catalog:
        for number, id_ in enumerate((upper, lower, wrong), start=1001):
            renamed = "UPDATE tracks SET id = ? WHERE id = ?"
            catalog.execute(renamed, (id_, track_id(number)))
    name_file(world, upper, servers_uri(upper), song)
    name_file(world, lower, servers_uri(lower), song)
    name_file(world, wrong, servers_uri("B" * 22))
    put = world.media / servers_uri(wrong)
    put.parent.mkdir(parents=True)
    put.write_bytes(song.read_bytes())
    api = await serve(world)
    statuses = [(await ask(api, each)).status_code for each in (upper, lower, wrong)]
    assert statuses == [200, 200, 202]
    assert {row["audio_uri"] for row in await world.rows(_LEDGER)} == {
        servers_uri(upper), servers_uri(lower)
    }  # fmt: skip


async def test_parallel_requests_adopt_a_named_file_once(world: World, song: Path) -> None:
    """L-38: ten requests at once: one item, one ledger row, one audio.ready."""
    [track] = world.add_album(1, 1)
    name_file(world, track, servers_uri(track), song)
    api = await serve(world)
    answers = await asyncio.gather(*(ask(api, track, f"user-{n}") for n in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(await world.items()) == 1
    assert len(await in_outbox(world, "audio.ready")) == 1


async def test_a_message_that_carries_its_track_is_checked_in_the_catalog(
    world: World, song: Path
) -> None:
    """The message has no path; the catalog does: the file is adopted, nothing is queued."""
    [track] = world.add_album(1, 1)
    name_file(world, track, servers_uri(track), song)
    await serve(world)
    carried = {"id": track, "name": "Carried", "duration_ms": 8000}
    body = message(track, "42", track=carried)
    await world.publish("pezzottify.download.request.track", body)
    [accepted] = await eventually(lambda: in_outbox(world, "request.accepted"))
    assert (accepted["queued"], accepted["already_available"]) == (0, 1)
    assert [row["audio_uri"] for row in await world.rows(_LEDGER)] == [servers_uri(track)]


async def test_a_file_that_vanishes_while_it_is_checked_is_missing(
    world: World, song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gone between the status and the decode: no problem of the file, and the track is fetched."""
    [track] = world.add_album(1, 1)
    path = name_file(world, track, servers_uri(track), song)
    api = await serve(world)

    async def vanish(*_: object, **__: object) -> None:
        path.unlink()
        raise FileNotFoundError(2, "No such file", str(path))

    monkeypatch.setattr("shared.media.verify.probe", vanish)
    assert (await ask(api, track)).status_code == 202
    assert await world.rows(_PROBLEMS) == []


async def test_a_retry_of_what_is_there_meanwhile_is_refused(world: World, song: Path) -> None:
    """A FAILED item whose track has a file by now, or a broken one, is not fetched again."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    item = (await ask(api, track)).json()["item"]
    await world.execute(
        "UPDATE queue_items SET stage = 'failed', status = 'FAILED', completed_at = 1"
    )
    path = cut(name_file(world, track, servers_uri(track), song), song)
    refused = await api.post(f"{V1}/items/{item['id']}/retry")
    assert_problem(refused, 409, "conflict")
    assert "REPLACE_BROKEN" in refused.json()["detail"]
    path.write_bytes(song.read_bytes())
    refused = await api.post(f"{V1}/items/{item['id']}/retry")
    assert_problem(refused, 409, "conflict")
    assert "in place" in refused.json()["detail"]
