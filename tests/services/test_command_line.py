"""The command line against a real ingest: what it prints, and what it does not stop at."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import httpx

from tests.support.audio import make_audio
from tests.support.commands import Said, command, end, start
from tests.support.ingest_helpers import V1, ask_album, name_file, serve, servers_uri
from tests.support.world import ADMIN_KEY, World, album_id, eventually


async def said(api: httpx.AsyncClient, *args: str, **env: str) -> Said:
    """What a command against this API prints, with the administrator's key."""
    return await command(*args, env=_env(api) | env)


def _env(api: httpx.AsyncClient) -> dict[str, str]:
    return {"PEZZOTTIFY_DOWNLOADS_URL": str(api.base_url), "BOOTSTRAP_ADMIN_KEY": ADMIN_KEY}


async def test_one_bad_id_does_not_stop_the_rest(world: World) -> None:
    """F12: `track A BAD C` asks for A and C, tells of BAD, and ends with 1."""
    first, second = world.add_album(1, 2)
    api = await serve(world)
    done = await said(api, "track", first, "BAD", second)
    assert done.code == 1
    assert done.err.startswith("BAD: The request is malformed: track id 'BAD'")
    assert len(done.err.splitlines()) == 1
    assert [item["track_id"] for item in await world.items()] == [first, second]


async def test_an_id_is_no_path(world: World) -> None:
    """F12: `show ../../download/limits` is about an item of that name, which there is not."""
    api = await serve(world)
    for name in ("../../download/limits", "x/retry", "a?b=c#d", "ä b"):
        done = await said(api, "show", name)
        assert done.code == 1, done
        assert done.err.startswith(("There is no such thing", "The request is malformed")), done
        assert len(done.err.splitlines()) == 1


async def test_a_list_fits_and_tells_of_the_rest(world: World) -> None:
    """F12: at 60, 80 and 140 columns one line for each item, and how to see more."""
    world.add_album(1, 60)
    api = await serve(world)
    await ask_album(api, album_id(1))
    for columns in (60, 80, 140):
        done = await said(api, "list", COLUMNS=str(columns))
        head, *rows, last = done.lines
        assert len(rows) == 50, done.out
        assert all(len(line) <= columns for line in done.lines)
        assert last == "50 of 60, --offset 50 shows more"
        assert "waits for" in head
        assert ("artist" in head) == (columns > 60)
    shown = await said(api, "list", "--offset", "50", COLUMNS="140")
    assert len(shown.lines) == 12
    assert "its turn" in shown.lines[1]
    assert shown.lines[-1] == "51 to 60 of 60"


async def test_show_tells_what_an_item_waits_for(world: World) -> None:
    """In words, above everything that happened to it."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    asked = json.loads((await said(api, "track", track, "--json")).out)
    done = await said(api, "show", asked["item"]["id"], COLUMNS="80")
    assert done.lines[1] == "waits for: its turn"
    assert "requested over http" in done.out


async def test_statistics_and_scans_are_sentences(world: World) -> None:
    """No JSON on the screen; with --json all of it."""
    tracks = world.add_album(1, 3)
    api = await serve(world, "ingest", "watchdog")
    stats = await said(api, "stats")
    assert stats.lines[0] == "Queue: 0 waiting, 0 in work, 0 completed, 0 failed."
    assert "{" not in stats.out
    scan = await said(api, "scan", "--queue")
    assert scan.lines[0].startswith("Checked 3 of about 3 tracks: 0 have a file")
    assert "3 tracks queued." in scan.lines
    assert tracks[0] in scan.out
    assert json.loads((await said(api, "stats", "--json")).out)["by_status"]["PENDING"] == 3


async def test_files_that_the_catalog_names_are_adopted_and_listed(world: World) -> None:
    """`scan --adopt` says what it recorded, `stats` and `problems` what is wrong."""
    good, outside = world.add_album(1, 2)
    song = make_audio(world.folder / "song.flac", seconds=8)
    name_file(world, good, servers_uri(good), song)
    name_file(world, outside, "../else\x1b[31mwhere.flac")
    api = await serve(world, "ingest", "watchdog")
    scan = await said(api, "scan", "--adopt")
    assert "1 file verified and recorded." in scan.lines
    assert "1 path of the catalog may not be used: see `problems`." in scan.lines
    assert "1 not usable" in (await said(api, "stats")).out
    listed = await said(api, "problems", COLUMNS="200")
    assert listed.lines[0].startswith(f"{outside}  outside: ../else")
    assert "\x1b" not in listed.out
    assert (await said(api, "problems", "--kind", "broken")).lines == []
    as_json = json.loads((await said(api, "problems", "--json")).out)
    assert as_json["items"][0]["kind"] == "outside"
    assert (await said(api, "problems", "--kind", "x")).code == 1


async def test_a_scan_says_what_keeps_it_and_ends_with_ctrl_c(world: World) -> None:
    """F12: with an unreadable catalog it tells so; Ctrl-C cancels it, and it blocks no other."""
    world.add_album(1, 1)
    world.catalog.rename(world.catalog.with_name("away.db"))
    api = await serve(world, "ingest", "watchdog")
    process = await start("scan", env=_env(api))
    assert process.stderr is not None
    line = await asyncio.wait_for(process.stderr.readline(), 30)
    assert line.decode().startswith("waits: ")
    assert "correct CATALOG_DB" in line.decode()
    process.send_signal(signal.SIGINT)
    done = await end(process)
    assert (done.code, "Traceback" in done.err) == (1, False)
    assert done.lines[-1] == "The scan was cancelled: cancelled by admin."
    world.catalog.with_name("away.db").rename(world.catalog)
    assert (await said(api, "scan")).code == 0


async def test_a_scan_is_cancelled_from_elsewhere(world: World) -> None:
    """`scan --cancel ID`, as the refusal of a second scan tells."""
    api = await serve(world)
    scan_id = (await api.post(f"{V1}/admin/scan")).json()["scan_id"]
    refused = await said(api, "scan")
    assert (refused.code, scan_id in refused.err) == (1, True)
    done = await said(api, "scan", "--cancel", scan_id)
    assert done.lines[-1] == "The scan was cancelled: cancelled by admin."
    waiting = await start("scan", env=_env(api))

    async def ordered() -> bool:
        return bool(await world.rows("SELECT 1 FROM scans WHERE state = 'waiting'"))

    await eventually(ordered)
    waiting.send_signal(signal.SIGINT)
    assert (await end(waiting)).lines[-1].startswith("The scan was cancelled")


async def test_no_key_and_no_answer_are_one_line(tmp_path: Path) -> None:
    """F10: without a key, with an empty one, with no server there, with an address that is none."""
    no_server = {"PEZZOTTIFY_DOWNLOADS_URL": "http://music.invalid:1"}
    for env, words in (
        (no_server, "no key: set BOOTSTRAP_ADMIN_KEY"),
        (no_server | {"BOOTSTRAP_ADMIN_KEY": ""}, "no key: set BOOTSTRAP_ADMIN_KEY"),
        (
            {"PEZZOTTIFY_DOWNLOADS_URL": "http://127.0.0.1:1", "BOOTSTRAP_ADMIN_KEY": "x"},
            "http://127.0.0.1:1 does not answer",
        ),
        ({"PEZZOTTIFY_DOWNLOADS_URL": "127.0.0.1", "BOOTSTRAP_ADMIN_KEY": "x"}, "127.0.0.1"),
    ):
        done = await command("list", env=env, cwd=tmp_path)
        assert done.code == 1
        assert done.err.startswith(words), done.err
        assert len(done.err.splitlines()) == 1


async def test_refused_files_and_blocks_by_commands(world: World) -> None:
    """Listed with their reasons; what is not there is told in a line."""
    [track] = world.add_album(1, 1)
    await world.execute(
        "INSERT INTO bad_sources (track_id, info_hash, reason, item_id)"
        " VALUES ($1, 'abc', 'the audio is damaged', 'before')",
        track,
    )
    api = await serve(world)
    assert json.loads((await said(api, "refused", "list", "--json")).out)["total"] == 0
    done = await said(api, "refused", "release", "none")
    assert (done.code, done.err.startswith("none: There is no such thing")) == (1, True), done
    shown = await said(api, "blocked", "list", "--track", track)
    assert shown.lines == [f"abc  wrong, for {track}", "    the audio is damaged"]
    lifted = await said(api, "blocked", "lift", "abc", "--track", track)
    assert lifted.lines == ["lifted for 1 track"]
    assert await world.rows("SELECT 1 FROM bad_sources") == []
