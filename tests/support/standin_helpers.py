"""What the tests of the Torrentino stand-in share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import websockets
from websockets.asyncio.client import ClientConnection

from services.local.torrentino import Faults, Song, SongList, Standin, StandinConfig

Value = TypeVar("Value")
JSON = dict[str, Any]

AUDIO = bytes(range(256)) * 40  # the stand-in copies; it need not be audio here
QUICK = {"acquire_s": 0.0, "download_s": 0.03, "convert_s": 0.0, "place_s": 0.0, "tick_s": 0.005}


def body(description: str = "Abbey Road by The Beatles", **more: object) -> JSON:
    """The body of a `POST /tickets`."""
    return {
        "query_context": {"tags": ["music", "flac"], "description": description},
        "dest_path": "/media/music/beatles",
        **more,
    }


def track_body(title: str, dest: Path, *, artist: str = "The Band", **more: object) -> JSON:
    """A ticket for one track of the songs that `songs` makes."""
    context = {
        "tags": [],
        "description": f"{artist} {title}",
        "expected": {"type": "track", "artist": artist, "title": title},
    }
    return {"query_context": context, "dest_path": str(dest), **more}


def songs(folder: Path, *titles: str) -> SongList:
    """Songs by The Band with these titles, each with a file of its own bytes."""
    made = []
    for title in titles:
        path = folder / f"{title}.flac"
        path.write_bytes(AUDIO + title.encode())
        made.append(Song(artist="The Band", title=title, path=path))
    return SongList(made)


def quick(**changes: Any) -> StandinConfig:
    """A stand-in in a hurry."""
    return StandinConfig(**{**QUICK, **changes})


@asynccontextmanager
async def client(url: str, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client whose paths are relative to the API; without the cost of TLS."""
    async with httpx.AsyncClient(base_url=url, headers=headers, verify=False) as made:
        yield made


@asynccontextmanager
async def served(
    folder: Path, *titles: str, config: StandinConfig | None = None, faults: Faults | None = None
) -> AsyncIterator[tuple[Standin, httpx.AsyncClient]]:
    """A quick stand-in with these songs by The Band, and a client for it."""
    source = songs(folder, *titles)
    async with (
        Standin(config or quick(), source, faults) as standin,
        client(standin.url) as api,
    ):
        yield standin, api


@asynccontextmanager
async def listening(standin: Standin, **headers: str) -> AsyncIterator[ClientConnection]:
    """A WebSocket that gets every message from here on."""
    url = standin.url.replace("http", "ws", 1) + "/ws"
    async with websockets.connect(url, additional_headers=headers, proxy=None) as socket:
        yield socket


async def messages(
    socket: ClientConnection, until: Callable[[JSON], bool], *, deadline_s: float = 10
) -> list[JSON]:
    """All messages up to the one that `until` says is the last."""
    seen: list[JSON] = []
    async with asyncio.timeout(deadline_s):
        async for text in socket:
            seen.append(json.loads(text))
            if until(seen[-1]):
                break
    return seen


async def eventually(
    probe: Callable[[], Awaitable[Value | None]], *, deadline_s: float = 10
) -> Value:
    """Ask again and again until the answer is neither None nor false."""
    async with asyncio.timeout(deadline_s):
        while True:
            if value := await probe():
                return value
            await asyncio.sleep(0.003)


async def create(api: httpx.AsyncClient, sent: JSON) -> JSON:
    """A new ticket."""
    answer = await api.post("/tickets", json=sent)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def reaching(api: httpx.AsyncClient, ticket_id: str, *kinds: str) -> JSON:
    """The ticket, once it is in one of these states."""

    async def look() -> JSON | None:
        ticket: JSON = (await api.get(f"/tickets/{ticket_id}")).json()
        return ticket if ticket["state"]["type"] in kinds else None

    return await eventually(look)
