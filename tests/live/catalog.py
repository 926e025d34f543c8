"""The whole chain at a real catalog server, with times: from Request to what the user sees of it.

PEZZOTTIFY_BINARY names a server that was built. Torrentino is the stand-in of `make run`, whose
downloads take no time, so that the times are those of the services and of the server.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import httpx

from services.local.postgres import Postgres
from services.local.torrentino import StandinConfig
from shared.db.migrate import migrate
from shared.settings import SERVICES
from tests.live.programs import Failed
from tests.live.report import Report
from tests.support.catalog_server_api import EVERYTHING, LISTENER
from tests.support.music import album_id
from tests.support.pezzottify import PASSWORD, Pezzottify
from tests.support.waits import eventually
from tests.support.world import World, make_world

NAME = "pressed at the catalog server"
Close = Literal["delete", "leave", "receipt"]
TRACKS = 10
_WITHIN_S = 120.0
_DATABASE = "live_catalog"


@dataclass(kw_only=True)
class Chain:
    """What happened to one request, in seconds since it was pressed; and what the server shows."""

    close: Close
    seconds: dict[str, float] = field(default_factory=dict)
    effects: dict[str, str] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)


async def run(folder: Path, binary: Path, report: Report) -> bool:
    """Each BRIDGE_CLOSE with an album of its own; whether all that must hold held."""
    postgres = Postgres(folder / "postgres", fsync=False)
    await postgres.start()
    try:
        await postgres.create_database(_DATABASE)
        await migrate(postgres.url(_DATABASE))
        config = StandinConfig(acquire_s=0.0, download_s=0.1, tick_s=0.02)
        async with make_world(folder / "world", postgres.url(_DATABASE), config) as world:
            return await _all(world, binary, report)
    finally:
        await postgres.stop()


async def _all(world: World, binary: Path, report: Report) -> bool:
    # The server makes its own, with tables that no other program needs.
    world.catalog.unlink()
    server = Pezzottify(
        program=binary.resolve(),
        folder=world.folder / "pezzottify",
        media=world.media,
        databases=world.folder,
        ingestion=True,
    )
    await server.start()
    try:
        server.add_user("bridge", EVERYTHING)
        ann = await Listener.of(server)
        chains = [
            await _chain(world, server, ann, close, number)
            for number, close in enumerate(get_args(Close), start=1)
        ]
    finally:
        await server.stop()
    _tell(chains, report)
    return not any(chain.missed for chain in chains)


@dataclass(kw_only=True)
class Listener:
    """A user with the least rights, over plain HTTP."""

    id: str
    http: httpx.AsyncClient

    @classmethod
    async def of(cls, server: Pezzottify) -> Listener:
        """Make an account, and log in."""
        id_ = server.add_user("ann", LISTENER)
        http = httpx.AsyncClient(base_url=server.url, trust_env=False, verify=False, timeout=30)
        body = {"user_handle": "ann", "password": PASSWORD, "device_type": "web"}
        said = await http.post("/v1/auth/login", json=body | {"device_uuid": "device-of-ann"})
        http.headers["Authorization"] = said.json()["token"]
        http.cookies.clear()
        return cls(id=id_, http=http)

    async def press(self, number: int) -> str:
        """Request an album."""
        body = {"album_id": album_id(number)}
        answer = await self.http.post("/v1/download/request/album", json=body)
        if answer.status_code != 200:
            raise Failed(f"the server refuses the request: {answer.text}")
        return str(answer.json()["request_id"])

    async def status(self, remote_id: str) -> str:
        """What the listener sees of a request."""
        said = (await self.http.get("/v1/download/my-requests")).json()["requests"]
        return next((row["status"] for row in said if row["id"] == remote_id), "gone")

    async def plays(self, tracks: list[str]) -> bool:
        """Whether the server streams each of them."""
        for track in tracks:
            some = {"Range": "bytes=0-9"}
            answer = await self.http.get(f"/v1/content/stream/{track}", headers=some)
            if (answer.status_code, len(answer.content)) != (206, 10):
                return False
        return True

    async def album(self, number: int) -> str:
        """The flag that clients show."""
        said = (await self.http.get(f"/v1/content/album/{album_id(number)}")).json()
        return str(said["album_availability"])

    async def events(self, number: int) -> int:
        """How many events the server has told its clients of an album."""
        return (await self.http.get("/v1/sync/catalog")).text.count(album_id(number))


async def _chain(
    world: World, server: Pezzottify, ann: Listener, close: Close, number: int
) -> Chain:
    tracks = world.add_album(number, TRACKS, seconds=8.0, artist=f"Band {number}")
    chain, bells = Chain(close=close), len(server.bells())
    running = await world.run(
        *SERVICES,
        "bridge",
        BRIDGE_CLOSE=close,
        BRIDGE_CATALOG_WRITE="true",
        CATALOG_SERVER_URL=server.url,
        CATALOG_SERVER_USER="bridge",
        CATALOG_SERVER_PASSWORD=PASSWORD,
    )
    try:
        # The first login costs the server three seconds where it was built without optimisation.
        await eventually(lambda: _logged_in(world), within_s=_WITHIN_S)
        begun = time.monotonic()
        remote_id = await ann.press(number)

        async def step(name: str, reached: Callable[[], Awaitable[bool]]) -> None:
            try:
                await eventually(reached, within_s=_WITHIN_S)
            except AssertionError:
                chain.missed.append(f"not {name} within {_WITHIN_S:.0f} s")
            chain.seconds[name] = time.monotonic() - begun

        await step("queued", lambda: _items(world, tracks, "queue_items", "true"))
        await step("placed", lambda: _items(world, tracks, "queue_items", "status = 'COMPLETED'"))
        published = "published_at IS NOT NULL"
        await step("published", lambda: _items(world, tracks, "media_files", published))
        await step("streams", lambda: ann.plays(tracks))
        await step("shown", lambda: _is(ann.album(number), "complete"))
        await step("ended", lambda: _ended(world, remote_id))
        chain.effects = {
            "the request": await ann.status(remote_id),
            "bells": str(len(server.bells()) - bells),
            "catalog events": str(await ann.events(number)),
            "album": await ann.album(number),
        }
        _judge(chain)
    finally:
        await running.end()
    return chain


_EXPECTED = {
    "delete": {"the request": "gone", "bells": "0", "catalog events": "0", "album": "complete"},
    "leave": {"the request": "PENDING", "bells": "0", "catalog events": "0", "album": "complete"},
    "receipt": {"the request": "COMPLETED", "bells": "1", "album": "complete"},
}


def _judge(chain: Chain) -> None:
    for name, expected in _EXPECTED[chain.close].items():
        if chain.effects[name] != expected:
            chain.missed.append(f"{name}: {chain.effects[name]}, not {expected}")


async def _logged_in(world: World) -> bool:
    rows = await world.rows("SELECT ok FROM conditions WHERE dependency = 'catalog_server'")
    return any(row["ok"] for row in rows)


async def _items(world: World, tracks: list[str], table: str, condition: str) -> bool:
    sql = f"SELECT count(*) AS n FROM {table} WHERE track_id = ANY($1) AND {condition}"
    [row] = await world.rows(sql, tracks)
    return int(row["n"]) == len(tracks)


async def _ended(world: World, remote_id: str) -> bool:
    sql = "SELECT 1 FROM bridge_requests WHERE remote_id = $1 AND ended_at IS NOT NULL"
    return bool(await world.rows(sql, remote_id))


async def _is(answer: Awaitable[str], expected: str) -> bool:
    return await answer == expected


def _tell(chains: list[Chain], report: Report) -> None:
    steps = list(chains[0].seconds)
    effects = list(chains[0].effects)
    report.say(f"an album of {TRACKS} tracks at the catalog server, seconds since Request:")
    for row in (
        ["BRIDGE_CLOSE", *steps, *effects, ""],
        ["---"] * (len(steps) + len(effects) + 2),
        *(
            [
                chain.close,
                *(f"{chain.seconds[name]:.1f}" for name in steps),
                *(chain.effects.get(name, "") for name in effects),
                f"MISSED: {'; '.join(chain.missed)}" if chain.missed else "held",
            ]
            for chain in chains
        ),
    ):
        report.say(f"| {' | '.join(row)} |")
