"""A whole world for one test: its own database and NATS, a catalog, folders and a stand-in.

`World.run()` runs services in this process, `World.spawn()` as processes that can be killed.
Tests wait for what they expect with `eventually`, never for time to pass.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import asyncpg
import httpx
import nats
from nats.js.api import DeliverPolicy
from nats.js.errors import NotFoundError

from services.local.sample import create_catalog
from services.local.servers import Nats, free_port
from services.local.torrentino import Faults, Song, Standin, StandinConfig, TorrentSpec
from services.registry import every_service
from shared.app import App, make_app
from shared.bus.access import to_the_end
from shared.bus.streams import ensure_streams
from shared.bus.subjects import EVENT, EVENTS_STREAM, REQUESTS_STREAM
from shared.duty import Duty
from shared.media.paths import find_audio
from shared.media.write_check import CHECKED
from shared.process import build_all
from shared.settings import SERVICES, Service, Settings, load
from shared.states import DownloadState, ScanState, ServerRequestState, Stage, edges
from shared.supervisor import serve
from shared.web import WebServer
from tests.support.databases import url_of
from tests.support.kept_connection import Connection, KeptConnection
from tests.support.music import Growing, Music, album_id, track_id
from tests.support.waits import eventually

__all__ = [  # what tests import from here, wherever it is made
    "ADMIN",
    "ADMIN_KEY",
    "Row",
    "Running",
    "World",
    "album_id",
    "as_user",
    "eventually",
    "free_ops_port",
    "make_world",
    "track_id",
]

T = TypeVar("T")
Row = dict[str, Any]

ADMIN_KEY = "an-admin-key-for-tests"
ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}


def as_user(user_id: str) -> dict[str, str]:
    """Headers of the catalog server acting for a user."""
    return ADMIN | {"X-User-Id": user_id}


_SETS_A_STATE = re.compile(r"^\s*UPDATE .*\bSET .*\b(stage|state) = ", re.DOTALL)

_ANY_MOVE = """
INSERT INTO transitions (life, from_state, to_state)
SELECT $1, f, t FROM unnest($2::text[]) AS f, unnest($2::text[]) AS t
ON CONFLICT DO NOTHING
"""
_KNOWN_MOVES = """
DELETE FROM transitions t
 WHERE NOT EXISTS (SELECT 1 FROM unnest($1::text[], $2::text[], $3::text[]) AS k (life, f, t)
                    WHERE (k.life, k.f, k.t) = (t.life, t.from_state, t.to_state))
"""
_LIVES: dict[str, type[StrEnum]] = {
    "item": Stage,
    "download": DownloadState,
    "scan": ScanState,
    "server_request": ServerRequestState,
}


@asynccontextmanager
async def any_move(connection: asyncpg.Connection[asyncpg.Record]) -> AsyncIterator[None]:
    """A transaction in which the database allows every move, so that a test can begin anywhere."""
    async with connection.transaction():
        for life, states in _LIVES.items():
            await connection.execute(_ANY_MOVE, life, [str(state) for state in states])
        yield
        await connection.execute(_KNOWN_MOVES, *(list(each) for each in zip(*edges(), strict=True)))


@dataclass
class Running:
    """Services that run in this process."""

    app: App
    duties: list[Duty]
    stop: asyncio.Event
    task: asyncio.Task[None]
    api: httpx.AsyncClient | None

    async def end(self) -> None:
        """Stop as SIGTERM would, and wait for the end."""
        self.stop.set()
        await self.task
        if self.api is not None:
            await self.api.aclose()


@dataclass(kw_only=True)
class World(Music):
    """Everything around the services."""

    database_url: str
    nats: Nats
    standin: Standin
    env: dict[str, str]
    running: list[Running] = field(default_factory=list)
    _processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    _reading: KeptConnection = field(default_factory=lambda: KeptConnection(parses_json=True))
    _writing: KeptConnection = field(default_factory=KeptConnection)

    @property
    def media(self) -> Path:
        return self.folder / "media"

    @property
    def incoming(self) -> Path:
        return self.folder / "incoming"

    def ticket_folders(self) -> list[Path]:
        """The folders of tickets, below that of this installation."""
        return sorted(self.incoming.glob("*/*"))

    @property
    def downloads(self) -> Path:
        """Where the torrent client saves; TORRENTINO_DOWNLOADS_ROOT of a test that shows it."""
        return self.standin.downloads or self.folder / "downloads"

    @property
    def faults(self) -> Faults:
        """What goes wrong at the stand-in; change it at any time."""
        return self.standin.faults

    def settings(self, services: Sequence[Service] = SERVICES, **overrides: str) -> Settings:
        """The settings of this world; overrides by variable name."""
        return load(services, self.env | overrides)

    async def run(self, *services: Service, **overrides: str) -> Running:
        """Run services (none named: all) in this process until the test ends.

        A single one has only the rights of its own login.
        """
        names = services or SERVICES
        app = make_app(self.settings(names, **(self._login(services) | overrides)), name="test")
        duties = build_all(app, every_service(*names))
        stop = asyncio.Event()
        task = asyncio.create_task(serve(app, duties, stop))
        running = Running(app=app, duties=duties, stop=stop, task=task, api=None)
        self.running.append(running)
        for duty in duties:
            if isinstance(duty, WebServer):
                await duty.started.wait()
                running.api = httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{duty.port}",
                    headers=ADMIN,
                    timeout=30,
                    # Reading the machine's certificates takes half a second, for plain HTTP.
                    verify=False,
                    trust_env=False,
                )
        return running

    async def spawn(self, *services: Service, **overrides: str) -> asyncio.subprocess.Process:
        """Run services as one process of their own, which a test may kill; logins as `run`."""
        with (self.folder / "services.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services", "run", *(services or ("all",))),
                env=os.environ | self.env | self._login(services) | overrides,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
            )
        self._processes.append(process)
        return process

    def _login(self, services: Sequence[Service]) -> dict[str, str]:
        if len(services) != 1:
            return {}
        [service] = services
        return {"DATABASE_URL": url_of(service, self.env["DATABASE_URL"])}

    async def rows(self, sql: str, *args: object) -> list[Row]:
        """Rows of this world's database."""

        async def ask(connection: Connection) -> list[Row]:
            return [dict(row) for row in await connection.fetch(sql, *args)]

        return await self._reading.run(self.database_url, ask)

    async def execute(self, sql: str, *args: object) -> str:
        """Change this world's database without the services, to any state that a test needs."""

        async def ask(connection: Connection) -> str:
            if not _SETS_A_STATE.search(sql):
                return str(await connection.execute(sql, *args))
            async with any_move(connection):
                return str(await connection.execute(sql, *args))

        return await self.over(ask)

    async def over(self, ask: Callable[[Connection], Awaitable[T]]) -> T:
        """What `ask` returns, which is given a connection to this world's database."""
        return await self._writing.run(self.database_url, ask)

    async def items(self) -> list[Row]:
        """All items in the order of the queue."""
        return await self.rows("SELECT * FROM queue_items ORDER BY seq")

    async def until_ended(self, count: int, *, within_s: float = 60) -> list[Row]:
        """The items, when `count` of them are COMPLETED or FAILED and none is under way."""

        def ended(items: list[Row]) -> bool:
            done = [item for item in items if item["status"] in ("COMPLETED", "FAILED")]
            return len(done) == len(items) == count

        return await eventually(self.items, ended, within_s=within_s)

    def files(self) -> dict[str, Path]:
        """Every file below audio/, by track id; two for one track fail the test.

        Each has its track's own name, or is the one that the catalog names.
        """
        found: dict[str, Path] = {}
        named = self.named()
        for path in self.placed():
            assert path.stem not in found, f"two files for {path.stem}"
            is_named = self.media / named.get(path.stem, "") == path
            own = is_named or find_audio(self.media, path.stem) == [path]
            assert own, f"{path} is misplaced"
            found[path.stem] = path
        return found

    def placed(self) -> list[Path]:
        """Every file below audio/, but that of a check whether the disk can be written to."""
        below = sorted((self.media / "audio").rglob("*"))
        return [path for path in below if path.name != CHECKED and path.is_file()]

    def named(self) -> dict[str, str]:
        """Where the catalog says that files lie, by track id; nothing without a catalog."""
        try:
            uri = f"file:{quote(str(self.catalog))}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True)) as catalog:
                rows = catalog.execute(
                    "SELECT id, audio_uri FROM tracks WHERE audio_uri IS NOT NULL"
                ).fetchall()
        except sqlite3.OperationalError:
            return {}  # it is away, or has no such column
        return {str(track_id): str(uri) for track_id, uri in rows}

    def live_tickets(self) -> list[Row]:
        """The tickets that the stand-in still works on or waits with."""
        ended = {"completed", "failed", "cancelled", "rejected"}
        return [
            dict(ticket)
            for ticket in self.standin.tickets()
            if ticket["state"]["type"] not in ended  # type: ignore[index]
        ]

    async def publish(self, subject: str, body: object) -> None:
        """Publish a request as the catalog server would, with its `Nats-Msg-Id`."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = None
        if isinstance(body, dict) and "request_id" in body:
            headers = {"Nats-Msg-Id": str(body["request_id"])}
        client = await nats.connect(self.nats.url)
        try:
            js = client.jetstream()
            await ensure_streams(js)
            await js.publish(subject, data, headers=headers)
        finally:
            await to_the_end(client.close())

    async def events(self, subject: str = ">", stream: str = EVENTS_STREAM) -> list[Row]:
        """Every message of a stream so far below `event.`; `subject` may hold wildcards.

        Each has `subject`, `headers`, and `body` (parsed, or bytes where it is no JSON).
        """
        client = await nats.connect(self.nats.url)
        try:
            js = client.jetstream()
            filter_ = f"{EVENT}.{subject}" if stream == EVENTS_STREAM else subject
            info = await js.stream_info(stream)
            if info.state.messages == 0:
                return []
            subscription = await js.subscribe(
                filter_, stream=stream, ordered_consumer=True, deliver_policy=DeliverPolicy.ALL
            )
            consumer = await subscription.consumer_info()
            assert consumer.delivered is not None
            count = consumer.delivered.consumer_seq + (consumer.num_pending or 0)
            messages = [await subscription.next_msg(timeout=10) for _ in range(count)]
            return [
                {
                    "subject": message.subject,
                    "headers": dict(message.headers or {}),
                    "body": _parsed(message.data),
                }
                for message in messages
            ]
        finally:
            await to_the_end(client.close())

    async def has_consumer(self, durable: str) -> bool:
        """Whether the requests stream has this durable consumer."""
        client = await nats.connect(self.nats.url)
        try:
            await client.jetstream().consumer_info(REQUESTS_STREAM, durable)
        except NotFoundError:
            return False
        else:
            return True
        finally:
            await to_the_end(client.close())

    async def close(self) -> None:
        """End what this test started."""
        for running in self.running:
            await running.end()
        for process in self._processes:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()
        self.drop_connections()

    def drop_connections(self) -> None:
        """End the connections of `rows`, `execute` and `over`."""
        self._reading.drop()
        self._writing.drop()


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data


@cache
def _empty_catalog() -> bytes:
    """A catalog without albums; SQLite waits for the disk as often as it makes a table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalog.db"
        create_catalog(path)
        assert list(Path(folder).iterdir()) == [path]
        return path.read_bytes()


@asynccontextmanager
async def make_world(
    folder: Path,
    database_url: str,
    config: StandinConfig | None = None,
    server: Nats | None = None,
) -> AsyncIterator[World]:
    """A world in `folder`, on a database that is migrated already.

    A test with another `server` gives each service its access.
    """
    songs: list[Song] = []
    torrents: list[TorrentSpec] = []
    server = server or Nats(folder / "nats")
    await server.start()
    for name in ("media", "incoming"):
        (folder / name).mkdir(parents=True)
    (folder / "catalog.db").write_bytes(_empty_catalog())
    config = config or StandinConfig(acquire_s=0.0, download_s=0.1, tick_s=0.02)
    downloads = config.downloads or folder / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    standin = Standin(replace(config, downloads=downloads), Growing(songs, torrents))
    async with _stopped_at_the_end(server), standin:
        env = {
            "DATABASE_URL": database_url,
            "NATS_URL": server.url,
            "TORRENTINO_URL": standin.url,
            "TORRENTINO_DEST_ROOT": str(folder / "incoming"),
            # tests/support/direct.py has the worlds in which we search and follow ourselves.
            "ACQUISITION": "tickets",
            # Its songs are torrents of one file; tests of albums say otherwise.
            "TICKET_GROUPING": "track",
            "CATALOG_DB": str(folder / "catalog.db"),
            "MEDIA_PATH": str(folder / "media"),
            "BOOTSTRAP_ADMIN_KEY": ADMIN_KEY,
            "PORT": "0",
            "OPS_PORT": "0",
            "POLL_INTERVAL_S": "0.2",
            "SWEEP_INTERVAL_S": "0.2",
            "LEASE_S": "5",
            "RETRY_INITIAL_S": "0.2",
            "RETRY_MULTIPLIER": "1",
            "SHUTDOWN_GRACE_S": "10",
            "MIN_FREE_DISK_MB": "0",
        }
        world = World(
            folder=folder,
            database_url=database_url,
            nats=server,
            standin=standin,
            songs=songs,
            env=env,
            torrents=torrents,
        )
        try:
            yield world
        finally:
            await world.close()


@asynccontextmanager
async def _stopped_at_the_end(server: Nats) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await server.stop()


def free_ops_port() -> str:
    """A port for a spawned service whose /readyz a test wants to ask."""
    return str(free_port())
