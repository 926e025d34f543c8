"""Albums without tickets: searched for, chosen, added, followed and found by ourselves."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.local.torrentino.links import SECRET_KEY
from tests.support.direct import (
    SERVICES,
    assert_originals,
    at_client,
    direct_world,
    downloads,
    files_of,
    list_release,
    until_at_client,
)
from tests.support.ingest_helpers import ask, ask_album, serve
from tests.support.releases import ARTIST, make_release
from tests.support.stages import assert_lawful
from tests.support.world import World, as_user, eventually


@pytest.fixture(params=["librqbit", "qbittorrent"])
async def direct(
    request: pytest.FixtureRequest, tmp_path: Path, database_url: str
) -> AsyncIterator[World]:
    async with direct_world(tmp_path, database_url, request.param) as world:
        yield world


@pytest.fixture
async def plain(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    """Nothing else is listed beside what a test lists."""
    async with direct_world(tmp_path, database_url, "qbittorrent", decoys=False) as world:
        yield world


async def test_an_album_beside_its_live_version_arrives(direct: World) -> None:
    """Five wrong releases with more seeders, and a dead one: one search, and no wrong file."""
    album = make_release(direct, 5)
    list_release(direct, album)
    api = await serve(direct, *SERVICES)
    await ask_album(api, album.id, "42")
    items = await direct.until_ended(5)
    assert {(i["status"], i["retry_count"]) for i in items} == {("COMPLETED", 0)}
    assert_originals(direct, album)
    assert direct.standin.searches == ["testers album 1"]
    assert direct.standin.tickets() == []
    ended = [row["remote_state"] for row in await downloads(direct)]
    assert ended == ["stalled", "completed"]
    assert len(at_client(direct)) == 1
    await assert_lawful(direct)


async def test_a_private_tracker_tells_neither_magnet_nor_hash(direct: World) -> None:
    albums = [make_release(direct, 3, n) for n in (1, 2)]
    for album in albums:
        list_release(direct, album, private=True)
    api = await serve(direct, *SERVICES)
    for album in albums:
        await ask_album(api, album.id, "42")
    await direct.until_ended(6)
    for album in albums:
        assert_originals(direct, album)
    hashes = {each.info_hash for each in direct.torrents}
    assert {row["info_hash"] for row in await downloads(direct) if row["brought"]} == hashes


async def test_a_magnet_whose_name_is_the_trackers(direct: World) -> None:
    """qBittorrent calls it by the link's name: the files are found by their bytes."""
    album = make_release(direct, 3)
    list_release(direct, album, magnet_only=True)
    api = await serve(direct, *SERVICES)
    await ask_album(api, album.id, "42")
    await direct.until_ended(3)
    assert_originals(direct, album)


async def test_a_discography_serves_three_albums_and_a_later_one(direct: World) -> None:
    """One download for four albums; the last one needs no search at all."""
    albums = [make_release(direct, 3, n) for n in (1, 2, 3, 4)]
    files = {f"Album {a.number}/{name}": path for a in albums for name, path in files_of(a).items()}
    list_release(direct, albums[0], title=f"{ARTIST} - Discography (4 albums) [FLAC]", files=files)
    api = await serve(direct, *SERVICES)
    for album in albums[:3]:
        await ask_album(api, album.id, "42")
    await direct.until_ended(9)
    asked = len(direct.standin.searches)
    assert asked <= 4
    await ask_album(api, albums[3].id, "43")
    await direct.until_ended(12)
    for album in albums:
        assert_originals(direct, album)
    assert len(direct.standin.searches) == asked
    assert len({row["info_hash"] for row in await downloads(direct) if row["brought"]}) == 1


async def test_a_lone_track_comes_out_of_its_album(direct: World) -> None:
    album = make_release(direct, 5)
    list_release(direct, album)
    api = await serve(direct, *SERVICES)
    await ask(api, album.ids[2], "42")
    await direct.until_ended(1)
    assert_originals(direct, album, album.ids[2:3])
    assert direct.standin.searches == ["testers album 1"]


async def test_a_lone_track_comes_as_a_single_file(direct: World) -> None:
    """Its album is not listed; a file of its own name is."""
    album = make_release(direct, 5)
    name = album.name(3)
    list_release(
        direct,
        album,
        title=f"{ARTIST} - {name} [FLAC]",
        files={f"{ARTIST} - {name}.flac": album.tracks[album.ids[2]]},
        folder="",
    )
    api = await serve(direct, *SERVICES)
    await ask(api, album.ids[2], "42")
    await direct.until_ended(1)
    assert_originals(direct, album, album.ids[2:3])
    assert len(direct.standin.searches) <= 3


async def test_what_could_never_be_placed_is_not_downloaded(plain: World) -> None:
    """By its title, however many have it; the release that can be placed is chosen."""
    album = make_release(plain, 3)
    for title, ending in (("[APE]", ".ape"), ("[OptimFROG]", ".ofr")):
        files = {name.replace(".flac", ending): path for name, path in files_of(album).items()}
        list_release(plain, album, title=f"{ARTIST} - Album 1 {title}", files=files, seeders=900)
    right = list_release(plain, album, seeders=3, folder="right")
    plain.env["AUDIO_PLAYABLE"] = "refuse"
    api = await serve(plain, *SERVICES)
    await ask_album(api, album.id, "42")
    await plain.until_ended(3)
    assert_originals(plain, album)
    assert {row["info_hash"] for row in await downloads(plain)} == {right.info_hash}
    assert set(at_client(plain)) == {right.info_hash}


async def test_wrong_audio_is_blocked_and_the_next_release_brings_the_rest(plain: World) -> None:
    """What was right stays; the release that was wrong for two tracks is blocked for those."""
    album, other = make_release(plain, 4), make_release(plain, 4, 2)
    strangers = list(other.tracks.values())
    files = files_of(album, (1, 2)) | {
        f"{n:02d} {album.name(n)}.flac": strangers[4 - n] for n in (3, 4)
    }
    wrong = list_release(plain, album, files=files, seeders=900)
    list_release(plain, album, title=f"{ARTIST} - Album 1 [FLAC] [CD]", seeders=3, folder="right")
    api = await serve(plain, *SERVICES)
    await ask_album(api, album.id, "42")
    items = await plain.until_ended(4)
    assert [i["retry_count"] for i in items] == [0, 0, 0, 0]
    assert_originals(plain, album)
    blocked = await plain.rows("SELECT * FROM blocklist ORDER BY track_id")
    assert [(row["track_id"], row["info_hash"]) for row in blocked] == [
        (id_, wrong.info_hash) for id_ in album.ids[2:]
    ]
    # It has brought two files: it goes on seeding.
    assert set(at_client(plain)) == {each.info_hash for each in plain.torrents}
    await assert_lawful(plain)


async def test_what_is_wrong_for_all_is_removed_with_its_files(plain: World) -> None:
    album, other = make_release(plain, 3), make_release(plain, 6, 2)
    shifted = dict(zip(files_of(album), list(other.tracks.values())[3:], strict=True))
    wrong = list_release(plain, album, files=shifted, seeders=900)
    right = list_release(plain, album, title=f"{ARTIST} - Album 1 [FLAC] [CD]", folder="right")
    api = await serve(plain, *SERVICES)
    await ask_album(api, album.id, "42")
    await plain.until_ended(3)
    assert_originals(plain, album)
    await until_at_client(plain, {right.info_hash})
    assert not (plain.downloads / wrong.name).exists()


async def test_torrents_with_the_same_folder_and_files_do_not_meet(plain: World) -> None:
    """qBittorrent would write the second over the first, and call both of them whole."""
    albums = [make_release(plain, 3, n) for n in (1, 2)]
    for album in albums:
        files = {f"{n:02d}.flac": path for n, path in enumerate(album.tracks.values(), start=1)}
        list_release(plain, album, files=files, folder="same")
    api = await serve(plain, *SERVICES)
    for album in albums:
        await ask_album(api, album.id, "42")
    await plain.until_ended(6)
    for album in albums:
        assert_originals(plain, album)
    folders = [row["torrent_path"] for row in await downloads(plain)]
    assert len(set(folders)) == 2
    assert all(path.endswith("/same") for path in folders)


async def test_after_max_grabs_it_waits_with_the_evidence(plain: World) -> None:
    album, other = make_release(plain, 3), make_release(plain, 6, 2)
    for year in (2010, 2011, 2012):
        shifted = dict(zip(files_of(album), list(other.tracks.values())[3:], strict=True))
        title = f"{ARTIST} - Album 1 ({year}) [FLAC]"
        list_release(plain, album, title=title, files=shifted, folder=str(year))
    api = await serve(plain, *SERVICES, MAX_GRABS="2")

    async def waiting() -> set[str]:
        return {item["stage"] for item in await plain.items()}

    await ask_album(api, album.id, "42")
    await eventually(waiting, lambda stages: stages == {"retry_wait"})
    items = await plain.items()
    assert all(i["error_message"].startswith("2 downloads did not bring it") for i in items)
    assert all(i["error_evidence"] for i in items)
    # On a busy machine the items may fail one by one, and then do not share their second download.
    assert {i["attempt"] for i in items} == {2}


async def test_what_nobody_lists_is_searched_for_three_times_a_day(plain: World) -> None:
    """One memory for twelve tracks, also for whoever asks again; a person's retry asks anew."""
    album = make_release(plain, 12)
    api = await serve(plain, *SERVICES, MAX_RETRIES="0")
    await ask_album(api, album.id, "42")
    items = await plain.until_ended(12)
    assert {(i["status"], i["error_type"]) for i in items} == {("FAILED", "not_found")}
    assert {i["error_message"] for i in items} == {"no indexer lists it"}
    first = len(plain.standin.searches)
    assert first <= 3
    await ask_album(api, album.id, "43")

    async def reasons() -> set[str]:
        rows = await plain.rows("SELECT reason FROM queue_items WHERE status = 'PENDING'")
        return {row["reason"] for row in rows}

    told = {"nothing was found: no indexer lists it"}
    await eventually(reasons, lambda found: found == told)
    assert len(plain.standin.searches) == first


async def test_a_persons_retry_searches_again(plain: World) -> None:
    album = make_release(plain, 3)
    api = await serve(plain, *SERVICES, MAX_RETRIES="0")
    await ask(api, album.ids[0], "42")
    [item] = await plain.until_ended(1)
    list_release(plain, album)
    answer = await api.post(f"/v1/download/items/{item['id']}/retry", headers=as_user("42"))
    assert answer.status_code == 202
    await plain.until_ended(1)
    assert_originals(plain, album, album.ids[:1])


async def test_no_key_of_an_indexer_is_told_anywhere(
    direct: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in the API, the events, the logs, nor in what a dead link is blamed for."""
    album = make_release(direct, 3)
    list_release(direct, album, private=True)
    direct.faults.dead_links = True
    api = await serve(direct, *SERVICES)
    await ask_album(api, album.id, "42")

    async def blocked() -> list[dict[str, object]]:
        return await direct.rows("SELECT * FROM blocklist")

    rows = await eventually(blocked)
    direct.faults.dead_links = False
    told = json.dumps([*rows, *await direct.events(), *await direct.items()], default=str)
    for route in ("admin/items", "admin/stats", "my-requests", "admin/attention"):
        told += (await api.get(f"/v1/download/{route}", headers=as_user("42"))).text
    told += capsys.readouterr().out
    assert SECRET_KEY not in told
    assert "apikey" not in told
