"""docs/bridge.md: the program for the author of a catalog server runs as it stands there."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from tests.support.world import World, album_id

PAGE = Path(__file__).parents[2] / "docs/bridge.md"
_PROGRAM = re.compile(r"<!-- run: author -->\n```python\n(.*?)^```", re.M | re.S)


async def run_the_program(world: World, *arguments: str) -> tuple[int | None, str]:
    """Its exit code, and what it printed."""
    [program] = _PROGRAM.findall(PAGE.read_text(encoding="utf-8"))
    path = world.folder / "author.py"
    path.write_text(program)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(path), *arguments),
        env=os.environ | {"NATS_URL": world.nats.url, "CATALOG_DB": world.env["CATALOG_DB"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(60):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, printed.decode()


def playable(world: World) -> dict[str, Path]:
    """By the server's rule: `audio_uri` is set, and leads to a file."""
    with closing(sqlite3.connect(world.env["CATALOG_DB"])) as catalog:
        rows = catalog.execute("SELECT id, audio_uri FROM tracks WHERE audio_uri > ''").fetchall()
    found = {track: world.media / uri for track, uri in rows}
    return {track: path for track, path in found.items() if path.is_file()}


async def test_the_program_asks_for_an_album_that_plays_then(world: World) -> None:
    """One request over NATS, under its user; each file is named in the catalog; and again."""
    wanted = world.add_album(1, 2)
    running = await world.run()
    # The streams are there from then on.
    await running.app.bus.connected.wait()
    assert playable(world) == {}
    code, printed = await run_the_program(world, "request-1", "42", album_id(1))
    assert code == 0, printed
    assert sorted(re.findall(r"^plays: (\S+)$", printed, re.M)) == sorted(wanted)
    assert playable(world) == world.files()
    assert len(playable(world)) == 2
    requested = await world.rows("SELECT DISTINCT user_id FROM item_requesters")
    assert [row["user_id"] for row in requested] == ["42"]
    # The durable consumer has read them; what is there already ends a second request at once.
    code, printed = await run_the_program(world, "request-2", "42", album_id(1))
    assert (code, printed) == (0, "")


async def test_the_program_says_why_a_request_is_refused(world: World) -> None:
    """An album that the catalog does not have."""
    await world.run("ingest")
    code, printed = await run_the_program(world, "request-1", "42", album_id(7))
    assert code == 1
    assert album_id(7) in printed
