"""What goes wrong around our own downloads: outages, strangers' torrents, losses, cancels."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from services.local.postgres import Postgres
from services.local.torrentino.offers import Offer
from services.local.torrentino.torrent import Torrent
from services.local.torrentino.torrents import ByHand
from shared.db.migrate import head, migrate
from shared.db.pool import Database
from shared.db.torrents_seen import lock_for_add
from tests.support.autoindex import Autoindex
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
from tests.support.ingest_helpers import ask_album, send, serve
from tests.support.releases import ARTIST, length_s, make_release
from tests.support.world import ADMIN, Row, World, as_user, eventually

VERSIONS = Path(__file__).parents[2] / "shared/db/migrations/versions"


@pytest.fixture(params=["librqbit", "qbittorrent"])
async def direct(
    request: pytest.FixtureRequest, tmp_path: Path, database_url: str
) -> AsyncIterator[World]:
    async with direct_world(tmp_path, database_url, request.param, decoys=False) as world:
        yield world


@pytest.fixture
async def rqbit(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    async with direct_world(tmp_path, database_url, "librqbit", decoys=False) as world:
        yield world


async def conditions(world: World) -> dict[str, bool]:
    rows = await world.rows("SELECT dependency, bool_and(ok) AS ok FROM conditions GROUP BY 1")
    return {row["dependency"]: row["ok"] for row in rows}


@pytest.mark.parametrize(
    ("fault", "dependency"), [("client_away", "torrent_client"), ("searcher_away", "searcher")]
)
async def test_what_stands_behind_torrentino_is_away(
    direct: World, fault: str, dependency: str
) -> None:
    """A condition of its own; no attempt is burnt, and all arrives when it is back."""
    album = make_release(direct, 3)
    list_release(direct, album)
    setattr(direct.faults, fault, True)
    api = await serve(direct, *SERVICES)
    await ask_album(api, album.id, "42")
    await eventually(lambda: conditions(direct), lambda said: said.get(dependency) is False)
    stats = (await api.get("/v1/download/admin/stats", headers=ADMIN)).json()
    assert dependency in {each["dependency"] for each in stats["paused"]}
    setattr(direct.faults, fault, False)
    items = await direct.until_ended(3)
    assert {(i["status"], i["attempt"] <= 3, i["retry_count"]) for i in items} == {
        ("COMPLETED", True, 0)
    }
    assert_originals(direct, album)


async def test_the_client_goes_away_while_it_downloads(direct: World) -> None:
    """What nobody could look at was not idle."""
    album = make_release(direct, 3)
    list_release(direct, album)
    direct.faults.fates[album.title.casefold()] = "stuck_downloading"
    api = await serve(direct, *SERVICES)
    await ask_album(api, album.id, "42")

    async def stages() -> set[str]:
        return {item["stage"] for item in await direct.items()}

    await eventually(stages, lambda found: found == {"downloading"})
    direct.faults.client_away = True
    await eventually(lambda: conditions(direct), lambda said: said.get("torrent_client") is False)
    del direct.faults.fates[album.title.casefold()]
    direct.faults.client_away = False
    items = await direct.until_ended(3)
    assert {(i["status"], i["attempt"], i["grabs"]) for i in items} == {("COMPLETED", 1, 0)}


async def test_indexers_that_could_not_be_asked_leave_no_memory(rqbit: World) -> None:
    """The album may be theirs: nothing is remembered, and it is asked again within hours."""
    album, other = make_release(rqbit, 2), make_release(rqbit, 2, 2)
    list_release(rqbit, album)
    list_release(rqbit, other, indexers=("lab",))
    rqbit.faults.indexer_errors = {"openbay": "429 Too Many Requests"}
    api = await serve(rqbit, *SERVICES)
    await ask_album(api, album.id, "42")

    async def waiting() -> list[Row]:
        return await rqbit.rows(
            "SELECT error_evidence, due_at - now() < interval '2 hours' AS soon"
            " FROM queue_items WHERE stage = 'retry_wait'"
        )

    rows = await eventually(waiting, lambda found: len(found) == 2)
    assert all(row["soon"] for row in rows)
    assert {tuple(row["error_evidence"]["indexers_failed"]) for row in rows} == {("openbay",)}
    assert await rqbit.rows("SELECT * FROM not_found") == []


async def test_a_torrent_that_is_there_already_is_used_and_never_touched(direct: World) -> None:
    """Somebody else's: it serves us, no second one is added, and no cleanup removes it."""
    album = make_release(direct, 3)
    spec = list_release(direct, album)
    api = await serve(direct, *SERVICES, DOWNLOAD_CLEANUP="all")
    found = (await api.post(f"{direct.standin.url}/search", json={"query": "Testers Album"})).json()
    link = found["candidates"][0]["sources"][0]["torrent_url"]
    added = await api.post(f"{direct.standin.url}/torrents/add/url", json={"url": link})
    assert added.status_code == 200
    adds = direct.standin.requests["POST /torrents/add/url"]
    await ask_album(api, album.id, "42")
    await direct.until_ended(3)
    assert_originals(direct, album)
    assert direct.standin.requests["POST /torrents/add/url"] == adds
    [row] = await downloads(direct)
    assert row["ours"] is False
    assert set(at_client(direct)) == {spec.info_hash}


async def test_all_that_we_added_goes_where_all_shall_go(direct: World) -> None:
    album = make_release(direct, 3)
    list_release(direct, album)
    api = await serve(direct, *SERVICES, DOWNLOAD_CLEANUP="all")
    await ask_album(api, album.id, "42")
    await direct.until_ended(3)
    await until_at_client(direct, set())
    assert_originals(direct, album)


async def test_files_that_lie_there_whole_are_used(rqbit: World) -> None:
    """librqbit does not add again what was removed without its files."""
    album = make_release(rqbit, 3)
    spec = list_release(rqbit, album)
    api = await serve(rqbit, *SERVICES)
    await ask_album(api, album.id, "42")
    await rqbit.until_ended(3)
    await api.delete(f"{rqbit.standin.url}/torrents/{spec.info_hash}")
    for path in rqbit.files().values():
        path.unlink()
    await rqbit.execute("DELETE FROM media_files")
    await ask_album(api, album.id, "43")
    await rqbit.until_ended(6)
    assert_originals(rqbit, album)
    assert [row["remote_state"] for row in await downloads(rqbit)] == ["completed", "in_the_way"]


@pytest.mark.parametrize("loss", ["forget_torrent", "break_torrent"])
async def test_what_is_lost_is_added_again_once(direct: World, loss: str) -> None:
    """Then it is the next release's turn."""
    album = make_release(direct, 3)
    first = list_release(direct, album, seeders=900)
    second = list_release(
        direct, album, title=f"{ARTIST} - Album 1 [FLAC] [CD]", seeders=5, folder="second"
    )
    direct.faults.fates[first.title.casefold()] = "stuck_downloading"
    api = await serve(direct, *SERVICES)
    await ask_album(api, album.id, "42")
    for turn in (1, 2):

        async def open_ones(turn: int = turn) -> bool:
            rows = await downloads(direct)
            return (
                len(rows) == turn
                and rows[-1]["looked_at"] is not None
                and bool(rows[-1]["progress_pct"])
            )

        await eventually(open_ones)
        getattr(direct.standin, loss)(first.info_hash)
        # librqbit would not add it over its files.
        await asyncio.to_thread(shutil.rmtree, direct.downloads / first.name, ignore_errors=True)
        # Shorter than it takes in reality to be sure that it is gone.
        await direct.execute("UPDATE tickets SET missing_at = now() - interval '1 minute'")

        async def ended(turn: int = turn) -> list[Row]:
            await direct.execute(
                "UPDATE tickets SET missing_at = now() - interval '1 minute'"
                " WHERE missing_at IS NOT NULL"
            )
            return [row for row in await downloads(direct) if row["state"] == "closed"][turn - 1 :]

        await eventually(ended)
    items = await direct.until_ended(3)
    assert_originals(direct, album)
    assert {i["grabs"] for i in items} == {1}
    assert (await downloads(direct))[-1]["info_hash"] == second.info_hash


async def test_a_cancelled_download_is_removed_and_others_stay(direct: World) -> None:
    albums = [make_release(direct, 3, n) for n in (1, 2)]
    mine, other = [list_release(direct, album) for album in albums]
    for spec in (mine, other):
        direct.faults.fates[spec.title.casefold()] = "stuck_downloading"
    api = await serve(direct, *SERVICES)
    for album in albums:
        await ask_album(api, album.id, "42")
    await until_at_client(direct, {mine.info_hash, other.info_hash})

    async def open_() -> int:
        return sum(row["state"] == "open" for row in await downloads(direct))

    await eventually(open_, lambda count: count == 2)
    for item in await direct.items():
        if item["album_id"] == albums[0].id:
            route = f"/v1/download/items/{item['id']}"
            assert (await api.delete(route, headers=as_user("42"))).is_success
    await until_at_client(direct, {other.info_hash})
    assert not (direct.downloads / mine.name).exists()


async def test_searches_keep_their_distance_without_a_history(rqbit: World) -> None:
    """The second album waits for its turn where it is, and says for what."""
    albums = [make_release(rqbit, 2, n) for n in (1, 2)]
    for album in albums:
        list_release(rqbit, album)
    api = await serve(rqbit, *SERVICES, SEARCH_GAP_S="3600")
    for album in albums:
        await ask_album(api, album.id, "42")

    async def waiting() -> list[Row]:
        return [item for item in await rqbit.items() if item["stage"] == "queued"]

    rows = await eventually(
        waiting, lambda found: len(found) == 2 and all("turn" in i["reason"] for i in found)
    )
    shown = (await api.get(f"/v1/download/items/{rows[0]['id']}", headers=as_user("42"))).json()
    assert shown["waiting_for"] == "waits for its turn to search"
    assert shown["next_attempt_at"] is not None
    await eventually(rqbit.items, lambda items: sum(i["status"] == "COMPLETED" for i in items) == 2)
    assert len(rqbit.standin.searches) == 1
    [count] = await rqbit.rows("SELECT count(*) FROM events WHERE item_id = $1", rows[0]["id"])
    assert count["count"] == 1


async def test_a_budget_of_an_hour_keeps_half_of_it_for_people(rqbit: World) -> None:
    """Background work stops at half; what a person asks for is searched for at once."""
    albums = [make_release(rqbit, 1, n) for n in range(1, 5)]
    for album in albums:
        list_release(rqbit, album)
    api = await serve(rqbit, *SERVICES, SEARCHES_PER_HOUR="2")
    for album in albums[:3]:
        await send(rqbit, album.ids[0], "42", priority=3)
    await eventually(rqbit.items, lambda items: sum(i["status"] == "COMPLETED" for i in items) == 1)
    await ask_album(api, albums[3].id, "42")
    await eventually(rqbit.items, lambda items: sum(i["status"] == "COMPLETED" for i in items) == 2)
    assert len(rqbit.standin.searches) == 2
    assert albums[3].ids[0] in rqbit.files()


async def test_people_find_a_place_while_a_scan_fills_the_others(rqbit: World) -> None:
    """MAX_DOWNLOADS holds for all; background work leaves some of it free."""
    albums = [make_release(rqbit, 1, n) for n in range(1, 6)]
    for album in albums:
        rqbit.faults.fates[list_release(rqbit, album).title.casefold()] = "stuck_downloading"
    api = await serve(rqbit, *SERVICES, MAX_DOWNLOADS="4")
    for album in albums[:4]:
        await send(rqbit, album.ids[0], "42", priority=3)

    async def open_() -> int:
        return sum(row["state"] == "open" for row in await downloads(rqbit))

    await eventually(open_, lambda count: count == 2)
    await ask_album(api, albums[4].id, "42")
    await eventually(open_, lambda count: count == 3)
    waiting = [item for item in await rqbit.items() if item["stage"] == "queued"]
    assert {item["priority"] for item in waiting} == {3}


async def test_what_is_in_error_leaves_before_it_is_added_again(rqbit: World) -> None:
    """Whatever the policy. While another one is being added, the item waits."""
    album = make_release(rqbit, 1)
    spec = list_release(rqbit, album)
    rqbit.faults.fates[spec.title.casefold()] = "stuck_downloading"
    api = await serve(rqbit, *SERVICES, DOWNLOAD_CLEANUP="keep")
    await ask_album(api, album.id, "42")
    await eventually(lambda: downloads(rqbit), lambda rows: any(r["progress_pct"] for r in rows))
    listed = rqbit.standin.requests

    async def looks() -> int:
        return listed["GET /torrents"]

    database = Database(rqbit.database_url)
    try:
        async with database.transaction() as adding:
            assert await lock_for_add(adding)
            rqbit.standin.break_torrent(spec.info_hash)
            before = await looks()
            await eventually(looks, lambda n: n > before + 3)
            assert [row["state"] for row in await downloads(rqbit)] == ["open"]
            rqbit.faults.fates.clear()
    finally:
        await database.close()
    [item] = await rqbit.until_ended(1)
    assert (item["status"], item["grabs"], item["retry_count"]) == ("COMPLETED", 0, 0)
    assert_originals(rqbit, album)


async def test_users_take_turns_at_the_budget_of_searches(rqbit: World) -> None:
    """With a search at a time, B's album is searched for before the rest of A's."""
    albums = [make_release(rqbit, 1, n) for n in range(1, 6)]
    for album in albums:
        list_release(rqbit, album)
    api = await serve(rqbit, "ingest")
    for album in albums[:4]:
        await ask_album(api, album.id, "A")
    first = await rqbit.run("ticketer", "poller", "fetcher_writer", SEARCHES_PER_HOUR="1")
    await eventually(rqbit.items, lambda items: sum(i["status"] == "COMPLETED" for i in items) == 1)
    await first.end()
    rqbit.running.remove(first)
    await ask_album(api, albums[4].id, "B")
    await rqbit.execute("UPDATE queue_items SET due_at = now()")
    await rqbit.run("ticketer", "poller", "fetcher_writer", SEARCHES_PER_HOUR="2")
    await eventually(rqbit.items, lambda items: sum(i["status"] == "COMPLETED" for i in items) == 2)
    done = [i["requested_by_user_id"] for i in await rqbit.items() if i["status"] == "COMPLETED"]
    assert sorted(done) == ["A", "B"]


async def test_over_http_files_come_from_the_torrents_own_folder(direct: World) -> None:
    """TORRENTINO_DOWNLOADS_URL, with the name of a magnet that is no folder's."""
    album = make_release(direct, 3)
    list_release(direct, album, magnet_only=True)
    async with Autoindex(direct.downloads) as server:
        api = await serve(direct, *SERVICES, TORRENTINO_DOWNLOADS_URL=server.url)
        await ask_album(api, album.id, "42")
        await direct.until_ended(3)
    assert_originals(direct, album)


async def test_what_an_album_lacks_is_searched_for_by_track(rqbit: World) -> None:
    """Three of five are in the only release of the album; the other two are listed alone."""
    album = make_release(rqbit, 5)
    list_release(rqbit, album, files=files_of(album, (1, 2, 3)))
    for place in (4, 5):
        name = album.name(place)
        path = album.tracks[album.ids[place - 1]]
        title = f"{ARTIST} - {name} [FLAC]"
        list_release(rqbit, album, title=title, files={f"{name}.flac": path}, folder="")
    api = await serve(rqbit, *SERVICES)
    await ask_album(api, album.id, "42")
    items = await rqbit.until_ended(5)
    assert {(i["status"], i["retry_count"]) for i in items} == {("COMPLETED", 0)}
    assert_originals(rqbit, album)


async def test_tickets_go_on_beside_our_own_downloads(rqbit: World) -> None:
    """What has a ticket when ACQUISITION changes keeps it; what is new does not get one."""
    albums = [make_release(rqbit, 2, n) for n in (1, 2)]
    for album in albums:
        rqbit.add_torrent(album.title, album.files())
    rqbit.faults.fates = {"album 1": "stuck_downloading"}
    grouped = {"TICKET_GROUPING": "auto"}
    before = await serve(rqbit, "ingest", "ticketer", "poller", ACQUISITION="tickets", **grouped)
    await ask_album(before, albums[0].id, "42")

    async def stages() -> set[str]:
        return {item["stage"] for item in await rqbit.items()}

    await eventually(stages, lambda found: found == {"downloading"})
    for running in rqbit.running:
        await running.end()
    rqbit.running.clear()
    api = await serve(rqbit, *SERVICES, **grouped)
    await ask_album(api, albums[1].id, "42")
    rqbit.faults.fates = {}
    items = await rqbit.until_ended(4)
    assert {i["status"] for i in items} == {"COMPLETED"}
    for album in albums:
        assert_originals(rqbit, album)
    assert len(rqbit.standin.tickets()) == 1
    assert len(await downloads(rqbit)) == 1


@pytest.mark.parametrize(
    ("lacks", "way"),
    [("", "direct"), ("searcher_configured", "tickets"), ("client_configured", "tickets")],
)
async def test_auto_takes_what_torrentino_has(rqbit: World, lacks: str, way: str) -> None:
    """Said in the statistics and by /readyz."""
    if lacks:
        setattr(rqbit.faults, lacks, False)
    api = await serve(rqbit, "ingest", "ticketer", ACQUISITION="auto")

    async def said() -> Row | None:
        stats = (await api.get("/v1/download/admin/stats", headers=ADMIN)).json()
        found: Row | None = stats["acquisition"]
        return found

    told = await eventually(said)
    assert told is not None
    assert told["way"] == way
    [running] = [each for each in rqbit.running if each.api is api]
    assert running.app.said["acquisition"].startswith(way)


async def test_somebody_elses_add_at_the_same_moment_is_not_taken_for_ours(rqbit: World) -> None:
    """librqbit answers the second of two adds with the first one's hash, and adds nothing."""
    album, other = make_release(rqbit, 3), make_release(rqbit, 4, 2)
    mine, stranger = list_release(rqbit, album), list_release(rqbit, other)
    api = await serve(rqbit, *SERVICES)
    found = (await api.post(f"{rqbit.standin.url}/search", json={"query": "album 2"})).json()
    [listed] = [each for each in found["candidates"] if each["title"] == stranger.title]
    link = listed["sources"][0]["torrent_url"]
    torrents = rqbit.standin.core.torrents
    add = torrents.add_by_hand

    def meanwhile(offer: Offer, how: ByHand) -> Torrent:
        if offer.info_hash == mine.info_hash and stranger.info_hash not in at_client(rqbit):
            return add(torrents.offered(stranger.info_hash) or offer_of(rqbit, link), how)
        return add(offer, how)

    torrents.add_by_hand = meanwhile  # type: ignore[method-assign]
    await ask_album(api, album.id, "42")
    await rqbit.until_ended(3)
    assert_originals(rqbit, album)
    assert [row["info_hash"] for row in await downloads(rqbit)] == [mine.info_hash]
    assert set(at_client(rqbit)) == {mine.info_hash, stranger.info_hash}


def offer_of(world: World, link: str) -> Offer:
    """What a link of the stand-in leads to."""
    return world.standin.core.search.follow(link)


async def test_releases_without_a_hash_are_added_one_after_the_other(direct: World) -> None:
    """Six albums of about the same size, at once: each gets its own torrent."""
    albums = [make_release(direct, 2, n) for n in range(1, 7)]
    for album in albums:
        list_release(direct, album, private=True)
    api = await serve(direct, *SERVICES)
    for album in albums:
        await ask_album(api, album.id, "42")
    await direct.until_ended(12)
    for album in albums:
        assert_originals(direct, album)
    hashes = [row["info_hash"] for row in await downloads(direct) if row["brought"]]
    assert sorted(hashes) == sorted(spec.info_hash for spec in direct.torrents)


async def test_open_tickets_of_the_schema_before_go_on(tmp_path: Path, postgres: Postgres) -> None:
    """An installation that is upgraded in the middle of a ticket: it is followed to its end."""
    await postgres.create_database("before_direct", template="template0")
    url = postgres.url("before_direct")
    connection = await asyncpg.connect(url)
    try:
        for path in sorted(VERSIONS.glob("000[1-5]_*.sql")):
            await connection.execute(path.read_text("utf-8"))
        await connection.execute("CREATE TABLE alembic_version (version_num varchar(32) NOT NULL)")
        await connection.execute("INSERT INTO alembic_version VALUES ('0005')")
    finally:
        await connection.close()
    async with direct_world(tmp_path, url, "qbittorrent", decoys=False) as world:
        album = make_release(world, 2)
        world.add_torrent(album.title, album.files())
        dest_path = f"{world.incoming}/t1"
        context = {"tags": [], "description": f"{ARTIST} Album 1"}
        async with httpx.AsyncClient() as api:
            body = {"query_context": context, "dest_path": dest_path}
            ticket = (await api.post(f"{world.standin.url}/tickets", json=body)).json()
        await world.execute(
            "INSERT INTO tickets (id, dest_path, torrentino_id, state, priority, kind, album_id)"
            " VALUES ('t1', $1, $2, 'open', 2, 'album', $3)",
            dest_path,
            ticket["id"],
            album.id,
        )
        for place, id_ in enumerate(album.ids, start=1):
            await world.execute(
                "INSERT INTO queue_items (id, track_id, status, priority, stage, ticket_id, actor,"
                " track_name, main_artist, album_id, album_name, duration_ms, track_number)"
                " VALUES ($1, $2, 'DOWNLOADING', 2, 'searching', 't1', 'ticketer', $3, $4, $5,"
                " 'Album 1', $6, $7)",
                *(f"i{place}", id_, album.name(place), ARTIST, album.id),
                *(int(1000 * length_s(place)), place),
            )
        assert await migrate(url) == head()
        await serve(world, *SERVICES)
        await world.until_ended(2)
        assert_originals(world, album)
        assert len(world.standin.tickets()) == 1
        assert await downloads(world) == []
