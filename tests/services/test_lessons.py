"""Lessons of the catalog server's first download manager that no other test is about.

docs/lessons.md lists all of them.
"""

from __future__ import annotations

import random
import re
import uuid
from pathlib import Path

import asyncpg
import pytest

from services.ingest.store.requests import usage
from services.local.postgres import Postgres
from shared.bus.subjects import REQUEST_ALBUM, REQUEST_TRACK
from shared.db.migrate import migrate
from shared.states import (
    STATUS_OF,
    TRANSITIONS,
    DownloadState,
    ScanState,
    ServerRequestState,
    Stage,
    Status,
)
from tests.services.test_reaper import put
from tests.support.ingest_helpers import V1, ask, ask_album, message, serve
from tests.support.stages import Stages, bare_world, one, queue, tickets, timeline
from tests.support.world import ADMIN, World, album_id, as_user, eventually, track_id

_ROOT = Path(__file__).parents[2]
_VERSIONS = sorted((_ROOT / "shared/db/migrations/versions").glob("*.sql"))


async def test_in_queue_equals_the_rows_after_any_thousand_moves(
    tmp_path: Path, database_url: str
) -> None:
    """L-01: whatever way 1000 random moves go, what the limits count is what is active."""
    rng = random.Random(1)
    with bare_world(tmp_path, database_url) as world:
        for user in range(3):
            tracks = [track_id(100 * user + n) for n in range(1, 101)]
            await queue(world, tracks, user_id=str(user))
        connection = await asyncpg.connect(database_url)
        await connection.execute("INSERT INTO tickets (id, dest_path, priority) VALUES ('t','t',0)")
        try:
            stages = dict.fromkeys([i["id"] for i in await world.items()], Stage.QUEUED)
            for move in range(1000):
                id_ = rng.choice([i for i in stages if TRANSITIONS[stages[i]]])
                stages[id_] = rng.choice(sorted(TRANSITIONS[stages[id_]]))
                await connection.execute(_MOVE, id_, stages[id_], STATUS_OF[stages[id_]])
                if move % 20 == 0:
                    await _counts_are_the_rows(connection)
            await _counts_are_the_rows(connection)
        finally:
            await connection.close()


_MOVE = """
UPDATE queue_items
   SET stage = $2, status = $3, ticket_id = 't',
       completed_at = CASE WHEN $3 IN ('COMPLETED', 'FAILED') THEN 1 END,
       lease_until = CASE WHEN $2 IN ('ticketing', 'fetching', 'verifying', 'converting')
                          THEN now() END
 WHERE id = $1
"""


async def _counts_are_the_rows(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    for user in ("0", "1", "2"):
        used = await usage(connection, user)  # type: ignore[arg-type]
        rows = await connection.fetchval(
            "SELECT count(*) FROM queue_items WHERE requested_by_user_id = $1 AND status = ANY($2)",
            user,
            [Status.PENDING.value, Status.DOWNLOADING.value],
        )
        assert used.in_queue == rows


async def test_an_album_that_comes_again_is_expanded_once(world: World) -> None:
    """L-04: the same message three times, and the album once more, are still its tracks once."""
    world.add_album(1, 5)
    api = await serve(world, "ingest")
    request = {"v": 1, "request_id": str(uuid.uuid4()), "user_id": "7", "album_id": album_id(1)}
    for _ in range(3):
        await world.publish(REQUEST_ALBUM, request)
    await eventually(world.items)
    answer = (await ask_album(api, album_id(1), "7")).json()
    assert (answer["queued"], answer["already_queued"]) == (0, 5)
    assert len(await world.items()) == 5
    twice = "SELECT 1 FROM item_requesters GROUP BY item_id, request_id HAVING count(*) > 1"
    assert await world.rows(twice) == []


async def test_a_decision_is_not_asked_for_again(still: World, by_hand: Stages) -> None:
    """L-27: an approved ticket continues; it needs no second approval or ticket."""
    await queue(still, [track_id(1)])
    await by_hand.ticket()
    by_hand.set_state(await one(still), type="needs_approval", candidates=[])
    await by_hand.poll()
    by_hand.set_state(await one(still), type="downloading", info_hash="a" * 40, progress_pct=1.0)
    for _ in range(3):
        await by_hand.poll()
        assert await by_hand.ticket() == 0
    assert (await timeline(still)).count("needs_approval") == 1
    assert (await one(still))["stage"] == "downloading"
    assert len(await tickets(still)) == len(still.standin.tickets()) == 1


async def test_every_kind_from_every_source_ends(world: World) -> None:
    """L-29, L-46: a track or album over HTTP or NATS and a scan all end; L-52, L-55: truthfully."""
    seconds = 2.0
    albums = {n: world.add_album(n, 2, seconds=seconds) for n in range(1, 6)}
    api = await serve(world, *("ingest", "ticketer", "poller", "fetcher_writer", "watchdog"))
    await ask(api, albums[1][0], "7")
    await ask_album(api, album_id(2), "7")
    await world.publish(REQUEST_TRACK, message(albums[3][0], "7"))
    body = {"v": 1, "request_id": str(uuid.uuid4()), "user_id": "7", "album_id": album_id(4)}
    await world.publish(REQUEST_ALBUM, body)
    scan = {"scope": "album", "album_id": album_id(5)}
    assert (await api.post(f"{V1}/admin/queue-all", json=scan, headers=ADMIN)).is_success
    items = await world.until_ended(8)
    assert {item["status"] for item in items} == {"COMPLETED"}
    files = world.files()
    ledger = {row["track_id"]: row for row in await world.rows("SELECT * FROM media_files")}
    for item in items:
        uri = ledger[item["track_id"]]["audio_uri"]
        assert re.fullmatch(r"audio(/\w\w){3}/\w{22}\.flac", uri)
        assert world.media / uri == files[item["track_id"]]
        assert item["bytes_downloaded"] == files[item["track_id"]].stat().st_size
        assert item["started_at"] <= item["completed_at"]
        assert (await timeline(world, item["id"]))[-2:] == ["verifying", "completed"]


def test_words_of_the_lifecycle_are_written_as_it_writes_them() -> None:
    """L-30, L-34: no SQL compares a status with a word, or in a case, that is never stored."""
    known = {*Stage, *Status, *DownloadState, *ScanState, *ServerRequestState}
    known |= {"idle in transaction"}
    known |= {f"{{DownloadState.{state.name}}}" for state in DownloadState}  # in f-strings
    known |= {"held"}  # the name before needs_choice, in the migration that renames it
    compared = re.compile(r"\b(?:stage|status|state)\s*(?:=|<>|IN)\s*(\('[^)]*\)|'[^']*')")
    found = {
        (path.name, word)
        for folder in ("services", "shared/db", "shared/bus")
        for path in (_ROOT / folder).rglob("*.*")
        if path.suffix in (".py", ".sql")
        for text in compared.findall(path.read_text(encoding="utf-8"))
        for word in re.findall(r"'([^']*)'", text)
    }
    assert len(found) > 30, "there is SQL to be found"
    assert {(name, word) for name, word in found if word not in known} == set()


async def test_a_thousand_and_one_are_paged_to_the_last(world: World) -> None:
    """L-56: what is listed page by page is all there is, each once, also behind the thousandth."""
    await queue(world, [track_id(n) for n in range(1, 1002)], user_id="7")
    api = await serve(world, "ingest")
    seen: list[str] = []
    more = True
    while more:
        url = f"{V1}/my-requests?limit=200&offset={len(seen)}"
        page = (await api.get(url, headers=as_user("7"))).json()
        assert page["total"] == 1001
        seen += [item["id"] for item in page["items"]]
        more = page["has_more"]
    assert len(seen) == len(set(seen)) == 1001


@pytest.mark.parametrize("released", range(1, len(_VERSIONS) + 1))
async def test_every_released_schema_is_upgraded_with_its_data(
    postgres: Postgres, tmp_path: Path, released: int
) -> None:
    """L-53: from each schema there ever was the newest is reached, and the data are kept."""
    name = f"upgrade_{uuid.uuid4().hex[:8]}"
    await postgres.create_database(name)
    connection = await asyncpg.connect(postgres.url(name))
    try:
        for file in _VERSIONS[:released]:
            await connection.execute(file.read_text(encoding="utf-8"))
        await connection.execute("CREATE TABLE alembic_version (version_num text PRIMARY KEY)")
        version = _VERSIONS[released - 1].name[:4]
        await connection.execute("INSERT INTO alembic_version VALUES ($1)", version)
        await connection.execute(_OLD_ITEM)
    finally:
        await connection.close()
    assert await migrate(postgres.url(name)) == _VERSIONS[-1].name[:4]
    with bare_world(tmp_path, postgres.url(name)) as world:
        await put(world, track_id(2), Stage.FETCHING, lease_s=1)
        assert [i["track_id"] for i in await world.items()] == [track_id(1), track_id(2)]
        assert await timeline(world, "old") == ["queued"]


_OLD_ITEM = f"""
INSERT INTO queue_items (id, track_id, status, stage, priority, actor, track_name)
VALUES ('old', '{track_id(1)}', 'PENDING', 'queued', 2, 'ingest', 'A song')
"""
