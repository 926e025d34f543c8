"""What waits for an administrator, and what one decides about it."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import httpx
import pytest

from tests.support.ingest_helpers import V1, ask, assert_problem, serve
from tests.support.stages import assert_lawful, one, timeline
from tests.support.world import ADMIN_KEY, World, as_user

CANDIDATES = [
    {"file": "Root/03 - Song.flac", "duration_s": 8.0, "title_score": 90, "why": "its number"},
    {"file": "Root/Song (alt).flac", "duration_s": 8.1, "title_score": 88, "why": "its length"},
]


async def held(world: World, api: httpx.AsyncClient) -> str:
    """An item whose torrent has two files that could be it; its id."""
    [track] = world.add_album(1, 1)
    item_id: str = (await ask(api, track, "42")).json()["item"]["id"]
    await world.execute(
        "INSERT INTO tickets (id, dest_path, priority, state, info_hash)"
        " VALUES ('t', '/t', 0, 'closed', 'h')"
    )
    await world.execute(
        "UPDATE queue_items SET stage = 'needs_choice', status = 'DOWNLOADING', actor = $1,"
        " ticket_id = 't', error_evidence = $2::text::jsonb",
        "a test's own",
        '{"info_hash": "h", "candidates": [{"file": "Root/03 - Song.flac"},'
        ' {"file": "Root/Song (alt).flac"}]}',
    )
    return item_id


async def decide(
    api: httpx.AsyncClient, item_id: str, decision: str, body: Any = None, **more: Any
) -> httpx.Response:
    return await api.post(f"{V1}/admin/items/{item_id}/{decision}", json=body, **more)


async def test_what_waits_for_a_person_is_listed_with_its_choices(world: World) -> None:
    """Who opens the list sees what is to be decided, where, and between what."""
    api = await serve(world)
    item_id = await held(world, api)
    page = (await api.get(f"{V1}/admin/attention")).json()
    assert page["total"] == 1
    [item] = page["items"]
    assert (item["id"], item["stage"], item["decided_at"]) == (item_id, "needs_choice", "here")
    assert [each["file"] for each in item["candidates"]] == [each["file"] for each in CANDIDATES]
    assert "administrator" in item["waiting_for"]
    await world.execute(
        "UPDATE queue_items SET stage = 'needs_approval', error_evidence = NULL, actor = 'x'"
    )
    await world.execute("UPDATE tickets SET state = 'open', candidates = '[{\"title\": \"A\"}]'")
    [item] = (await api.get(f"{V1}/admin/attention")).json()["items"]
    assert (item["decided_at"], item["candidates"]) == ("torrentino", [{"title": "A"}])
    assert_problem(await decide(api, item_id, "reject"), 409, "conflict")


async def test_an_approved_file_is_fetched(world: World) -> None:
    """The choice is kept with the item, which is ready at once; who chose is in its history."""
    api = await serve(world)
    item_id = await held(world, api)
    answer = await decide(api, item_id, "approve", {"file": "Root/Song (alt).flac"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["item"]["stage"] == "ready"
    row = await one(world)
    assert (row["chosen_file"], row["error_evidence"]) == ("Root/Song (alt).flac", None)
    assert "administrator admin chose" in row["reason"]
    assert_problem(
        await decide(api, item_id, "approve", {"file": "Root/Song (alt).flac"}), 409, "conflict"
    )
    assert await timeline(world, item_id) == ["queued", "needs_choice", "ready"]
    await assert_lawful(world)


async def test_a_rejection_ends_the_attempt_and_blocks_the_torrent(world: World) -> None:
    """None of the files is it: the next attempt wants another torrent or kind of ticket."""
    api = await serve(world)
    item_id = await held(world, api)
    answer = await decide(api, item_id, "reject")
    assert answer.status_code == 200, answer.text
    row = await one(world)
    assert (row["stage"], row["error_type"], row["retry_count"]) == ("retry_wait", "not_found", 1)
    assert len(row["error_evidence"]["candidates"]) == 2
    [source] = await world.rows("SELECT * FROM bad_sources")
    assert (source["track_id"], source["info_hash"], source["lacks"]) == (
        row["track_id"],
        "h",
        True,
    )
    await assert_lawful(world)


@pytest.mark.parametrize("body", [None, {}, {"file": 3}, {"file": "Root/other.flac"}])
async def test_only_a_file_that_was_shown_can_be_approved(world: World, body: Any) -> None:
    """Anything else is refused with the names that can be chosen; the item stays held."""
    api = await serve(world)
    item_id = await held(world, api)
    answer = await decide(api, item_id, "approve", body)
    assert_problem(answer, 422, "invalid-request")
    assert "Root/03 - Song.flac" in answer.json()["detail"]
    assert (await one(world))["stage"] == "needs_choice"


async def test_the_command_line_decides(world: World) -> None:
    """It shows the names of the files as they have to be given back, and gives one back."""
    api = await serve(world)
    item_id = await held(world, api)

    async def command(*args: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services", *args, "--url", str(api.base_url)),
            env=os.environ | {"BOOTSTRAP_ADMIN_KEY": ADMIN_KEY, "COLUMNS": "200"},
            stdout=asyncio.subprocess.PIPE,
        )
        shown, _ = await process.communicate()
        assert process.returncode == 0
        return shown.decode()

    shown = await command("attention")
    assert item_id in shown
    assert "Root/Song (alt).flac" in shown
    assert "ready" in await command("approve", item_id, "Root/Song (alt).flac")
    await world.execute(
        "UPDATE queue_items SET stage = 'needs_choice', actor = $1, error_evidence = '{}'",
        "a test's own",
    )
    assert "retry_wait" in await command("reject", item_id)


async def test_users_decide_nothing(world: World) -> None:
    """Nor do they see the list; an item without a row is unknown."""
    api = await serve(world)
    item_id = await held(world, api)
    for decision in ("approve", "reject"):
        answer = await decide(api, item_id, decision, headers=as_user("42"))
        assert_problem(answer, 403, "not-allowed")
        assert_problem(await decide(api, "no-such-item", decision), 404, "unknown")
    answer = await api.get(f"{V1}/admin/attention", headers=as_user("42"))
    assert_problem(answer, 403, "not-allowed")


async def test_a_held_item_can_be_withdrawn(world: World) -> None:
    """Its user need not wait for an administrator."""
    api = await serve(world)
    item_id = await held(world, api)
    answer = await api.delete(f"{V1}/items/{item_id}", headers=as_user("42"))
    assert answer.json()["item"]["status"] == "FAILED"
    await assert_lawful(world)
