"""The whole way with rights: each service comes as its own user of PostgreSQL.

tests/e2e/test_nats_users.py does so with tickets: `World.run` gives a single service its login.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from services.local.postgres import Postgres
from shared.settings import SERVICES
from tests.support.direct import assert_originals, direct_world, files_of, list_release
from tests.support.ingest_helpers import V1, ask, ask_album
from tests.support.releases import make_release
from tests.support.world import World, as_user, eventually


@pytest.fixture
async def direct(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    async with direct_world(tmp_path, database_url, "qbittorrent", decoys=False) as world:
        yield world


async def reached(world: World, stage: str) -> bool:
    """Whether the last item is there."""
    return bool((await world.items())[-1]["stage"] == stage)


async def test_the_whole_way_with_a_user_each(direct: World, postgres: Postgres) -> None:
    """A wrong release and the right one, a withdrawal, a retry, a scan: each service may do what it
    tries, by its own login."""
    before = len(postgres.log.read_text(encoding="utf-8"))
    album, never = make_release(direct, 3), make_release(direct, 1, 2)
    broken = direct.folder / "broken.flac"
    broken.write_bytes(b"fLaC" + bytes(200_000))
    list_release(direct, album, files=dict.fromkeys(files_of(album), broken), seeders=99)
    list_release(direct, album, title=f"{album.title} [2012 WEB]", seeders=3)
    running = {service: await direct.run(service) for service in SERVICES}
    users = await eventually(lambda: direct.rows(_USERS), lambda rows: len(rows) == len(SERVICES))
    assert {row["usename"] for row in users} == {f"login_{service}" for service in SERVICES}
    api = running["ingest"].api
    assert api is not None
    await ask_album(api, album.id, "42")
    await direct.until_ended(3)
    assert_originals(direct, album)
    assert len(await direct.rows("SELECT 1 FROM blocklist WHERE why = 'wrong'")) == 3
    [track] = never.ids
    asked = await ask(api, track, "42")
    assert asked.status_code == 202, asked.text
    item_id = (await direct.items())[-1]["id"]
    await eventually(lambda: direct.rows("SELECT 1 FROM not_found"))
    item = f"{V1}/items/{item_id}"
    for path, method, stage in (
        (item, "DELETE", "failed"),
        (f"{item}/retry", "POST", "retry_wait"),
    ):
        answer = await api.request(method, path, headers=as_user("42"))
        assert answer.is_success, answer.text
        await eventually(partial(reached, direct, stage))
    assert (await api.post(f"{V1}/admin/queue-all")).is_success
    await eventually(lambda: direct.rows("SELECT 1 FROM scans WHERE state = 'done'"))
    for one in running.values():
        await one.end()
    said = postgres.log.read_text(encoding="utf-8")[before:].splitlines()
    assert [line for line in said if "permission denied" in line] == []


_USERS = """
SELECT DISTINCT usename FROM pg_stat_activity
 WHERE datname = current_database() AND usename <> current_user
"""
