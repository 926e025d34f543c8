"""The reference for the other figures: the same 500 files by a loop that does the minimum.

It POSTs a ticket, polls it every 50 ms, then runs ffprobe and ffmpeg and copies: no queue, no
database, no fsync, no recovery. The difference to the service is the cost of its guarantees.
"""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import httpx

from shared.media.tools import find_tools
from tests.support.audio import make_audio
from tests.support.world import World

_ITEMS = 500
_SECONDS = 30.0
_FILES_AT_ONCE = 4
_TICKETS_AT_ONCE = 50


async def run(world: World) -> dict[str, Any]:
    """The bare loop over 500 songs."""
    audio = make_audio(world.folder / "song.mp3", seconds=_SECONDS, codec="mp3")
    world.add_album(1, _ITEMS, seconds=_SECONDS, audio=audio)
    tickets = asyncio.Semaphore(_TICKETS_AT_ONCE)
    files = asyncio.Semaphore(_FILES_AT_ONCE)
    async with httpx.AsyncClient(base_url=world.standin.url, timeout=60) as api:
        started = time.monotonic()
        await asyncio.gather(
            *(
                _one(world, api, song.artist, song.title, tickets=tickets, files=files)
                for song in world.songs
            )
        )
        took_s = time.monotonic() - started
    return {
        "items": _ITEMS,
        "all copied after s": round(took_s, 2),
        "items per second": round(_ITEMS / took_s, 1),
    }


async def _one(
    world: World,
    api: httpx.AsyncClient,
    artist: str,
    title: str,
    *,
    tickets: asyncio.Semaphore,
    files: asyncio.Semaphore,
) -> None:
    folder = world.incoming / str(uuid.uuid4())
    async with tickets:
        body = {
            "query_context": {
                "tags": ["music"],
                "description": f"{artist} {title}",
                "expected": {"type": "track", "artist": artist, "title": title},
            },
            "dest_path": str(folder),
        }
        ticket = (await api.post("tickets", json=body)).json()
        while ticket["state"]["type"] != "completed":
            await asyncio.sleep(0.05)
            ticket = (await api.get(f"tickets/{ticket['id']}")).json()
    async with files:
        [source] = folder.iterdir()
        await _decode(source)
        await asyncio.to_thread(shutil.copy, source, world.media / f"{uuid.uuid4()}.mp3")


async def _decode(source: Path) -> None:
    tools = find_tools()
    for command in (
        [tools.ffprobe, "-v", "error", "-show_format", "-show_streams", str(source)],
        [tools.ffmpeg, "-v", "error", "-i", str(source), "-f", "null", "-"],
    ):
        child = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        assert await child.wait() == 0
