"""What the tests of ingest and of the watchdog share."""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nats

from shared.bus.subjects import DEAD_STREAM, REQUEST_TRACK, REQUESTS_STREAM
from shared.media.paths import audio_dir
from shared.settings import Service
from tests.support.world import ADMIN, Row, Running, World, as_user, eventually

V1 = "/v1/download"


async def serve(world: World, *services: Service, **overrides: str) -> httpx.AsyncClient:
    """Run services, ingest among them, and return a client with the administrator's key."""
    running: Running = await world.run(*(services or ("ingest",)), **overrides)
    assert running.api is not None
    return running.api


async def ask(api: httpx.AsyncClient, track: str, user: str | None = None) -> httpx.Response:
    """Ask for a track, as a user when one is named."""
    return await api.post(f"{V1}/track/{track}", headers=as_user(user) if user else ADMIN)


async def ask_album(api: httpx.AsyncClient, album: str, user: str | None = None) -> httpx.Response:
    """Ask for an album, as a user when one is named."""
    return await api.post(f"{V1}/album/{album}", headers=as_user(user) if user else ADMIN)


def message(track_id: str, user: str | None = None, **more: object) -> dict[str, object]:
    """A request for a track as the catalog server sends it."""
    return {"v": 1, "request_id": str(uuid.uuid4()), "user_id": user, "track_id": track_id} | more


async def send(world: World, track_id: str, user: str | None = None, **more: object) -> str:
    """Send a request for a track over NATS; returns its request id."""
    body = message(track_id, user, **more)
    await world.publish(REQUEST_TRACK, body)
    return str(body["request_id"])


async def in_outbox(world: World, kind: str) -> list[Row]:
    """The data of all events of a kind, published or not."""
    rows = await world.rows("SELECT data FROM events WHERE kind = $1 ORDER BY seq", kind)
    return [row["data"] for row in rows]


@dataclass(frozen=True, kw_only=True)
class Dead:
    """A message of the dead stream."""

    headers: dict[str, str]
    data: bytes


async def dead(world: World, count: int) -> list[Dead]:
    """The dead messages, as soon as there are `count`."""
    client = await nats.connect(world.nats.url)
    try:
        js = client.jetstream()

        async def stored() -> int:
            return int((await js.stream_info(DEAD_STREAM)).state.messages)

        last = await eventually(stored, lambda found: found >= count)
        found = [await js.get_msg(DEAD_STREAM, seq) for seq in range(1, last + 1)]
        return [Dead(headers=dict(m.headers or {}), data=m.data or b"") for m in found]
    finally:
        await client.close()


async def unhandled(world: World) -> int:
    """How many requests are in the stream: not handled yet, or not acknowledged."""
    client = await nats.connect(world.nats.url)
    try:
        return int((await client.jetstream().stream_info(REQUESTS_STREAM)).state.messages)
    finally:
        await client.close()


def put_file(world: World, track: str, source: Path, ext: str = "flac") -> Path:
    """Put a file where a track's file belongs, behind the services' backs."""
    folder = audio_dir(world.media, track)
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(source, folder / f"{track}.{ext}"))


def everything_below(folder: Path) -> set[str]:
    """Every file of the media root but our mark."""
    return {str(p) for p in folder.rglob("*") if p.is_file() and p.name != ".media-root"}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer read from a socket."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


KEY = f"Authorization: {ADMIN['Authorization']}".encode()


async def raw(api: httpx.AsyncClient, method: str, target: str | bytes, *headers: bytes) -> Answer:
    """A request that goes out byte for byte; httpx would tidy it up, or refuse it."""
    path = target.encode() if isinstance(target, str) else target
    head = [method.encode() + b" " + path + b" HTTP/1.1", b"Host: x", b"Connection: close"]
    head += [*headers, b"Content-Length: 0"]
    reader, writer = await asyncio.open_connection(api.base_url.host, api.base_url.port)
    try:
        writer.write(b"\r\n".join(head) + b"\r\n\r\n")
        async with asyncio.timeout(10):
            answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    top, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    found = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    return Answer(status=int(first.split()[1]), headers=found, body=body)


def assert_problem(answer: httpx.Response | Answer, status: int, type_: str) -> None:
    """An RFC 9457 document with the stable type, a title, and what to do."""
    found = answer.status if isinstance(answer, Answer) else answer.status_code
    body = answer.json()
    assert found == status, body
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == status
    assert body["type"].endswith(type_), body
    assert body["title"]
    assert body["detail"]
