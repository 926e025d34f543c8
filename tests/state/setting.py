"""Where the state machine runs: real PostgreSQL, the stand-in over HTTP, two copies of each worker.

Nothing moves by itself. Workers can be held at a point between two effects and go on later, when
others have long worked on; time is moved by shifting what the database compares with its clock.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from services.ingest.__main__ import build as build_ingest
from services.local.sample import add_album, create_catalog
from services.local.servers import Nats
from services.local.torrentino import Standin, StandinConfig, TorrentSpec
from services.poller.__main__ import build as build_poller
from services.poller.direct import DownloadFollower
from services.ticketer.__main__ import build as build_ticketer
from services.ticketer.direct import DirectStarter
from services.ticketer.mode_choice import ModeChoice
from services.ticketer.service import Ticketer
from services.watchdog.__main__ import build as build_watchdog
from services.watchdog.service import Watchdog
from shared.acquisition.protocol import ModeName
from shared.app import App, make_app
from shared.bus.consumer import Consumer
from shared.bus.nats import Outgoing
from shared.bus.relay import Relay
from shared.duty import Duty, PeriodicDuty
from shared.errors import DependencyDown
from shared.leases import LeaseKeeper
from shared.settings import SERVICES
from shared.web import WebServer
from tests.support.audio import cut, make_audio
from tests.support.music import Growing
from tests.support.stages import Stages, poller_of, ticketer_of
from tests.support.world import ADMIN, ADMIN_KEY, Row, World, album_id, as_user, track_id

SECONDS = 1.5
WRONG_SECONDS = 4.0
OTHER_SECONDS = 2.7
# Few, so that what happens happens to the same ones.
ALBUMS = {album_id(1): [1, 2], album_id(2): [3]}
TRACKS = [track_id(number) for number in range(1, 4)]
MAX_PER_DAY = 4
MAX_QUEUE = 2
MAX_RETRIES = 2
MAX_GRABS = 2
STALL_S = 10_800
LEASE_S = 60


def name_of(album: str) -> str:
    """What an album is called."""
    return f"Album {int(album[1:])}"


def tracks_of(album: str) -> list[str]:
    """The ids of an album's tracks."""
    return [track_id(number) for number in ALBUMS[album]]


class MovedClock:
    """A process's clock that is set forward and back; only health and breakers may notice."""

    def __init__(self) -> None:
        self.offset_s = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.offset_s)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + max(0.0, self.offset_s)


class Wire:
    """The end of the bus that the relay publishes to: what arrives is kept, once by its id."""

    max_payload = 1024 * 1024

    def __init__(self) -> None:
        self.stored: dict[str, Outgoing] = {}
        self.trouble: str | None = None
        self.connected = asyncio.Event()
        self.connected.set()

    async def ensure(self) -> None:
        """Its streams are always there."""

    async def publish(self, messages: list[Outgoing]) -> None:
        """Store what is published, unless the next publishing is to be lost on its way."""
        trouble, self.trouble = self.trouble, None
        if trouble == "lost":
            raise DependencyDown("nats", "lost on its way")
        arrived = messages[: len(messages) // 2] if trouble == "half" else messages
        for message in arrived:
            assert self.stored.setdefault(message.id, message) == message, "two bodies of one id"
        if trouble is not None:
            raise DependencyDown("nats", "stored, but the answer was lost")


class Gate:
    """Lets a worker wait at one named point until it may go on."""

    def __init__(self) -> None:
        self._closed: str | None = None
        self._open = asyncio.Event()
        self.arrived = asyncio.Event()

    def close(self, point: str) -> None:
        self._closed = point
        self._open.clear()
        self.arrived.clear()

    def open(self) -> None:
        self._closed = None
        self._open.set()

    async def reach(self, point: str) -> None:
        if self._closed == point:
            # Only the first one waits; the others of its batch go on.
            self._closed = None
            self.arrived.set()
            await self._open.wait()

    def guard(self, owner: object, name: str, *, before: str = "", after: str = "") -> None:
        """Put this gate before or after a method of `owner`."""
        call: Callable[..., Awaitable[object]] = getattr(owner, name)

        async def guarded(*args: object, **named: object) -> object:
            await self.reach(before)
            answer = await call(*args, **named)
            await self.reach(after)
            return answer

        setattr(owner, name, guarded)


# Where each worker can be held: between two effects, outside of any transaction.
POINTS = {
    "ticketer": ("before the POST", "after the POST"),
    "poller": ("after reading", "before cancelling"),
    "fetcher": ("before looking", "after collecting", "before placing", "before failing"),
    "ingest": ("after looking",),
}
# The same for those of our own downloads.
DIRECT_POINTS = {
    "direct": ("before searching", "after searching", "before adding", "after adding"),
    "torrents": ("after listing",),
    "leftovers": ("before removing",),
    "fetcher": POINTS["fetcher"],
}


@dataclass
class Held:
    """A worker that waits at its gate in the middle of its work."""

    worker: str
    task: asyncio.Task[Any]
    # Called just before it goes on; what it returns is called with what the task gave.
    resume: Callable[[], Callable[[Any], None]]


class Copy:
    """One process with every service in it."""

    def __init__(self, setting: Setting, name: str) -> None:
        self.clock = MovedClock()
        app = make_app(setting.world.settings(SERVICES), name=name, clock=self.clock)
        self.app: App = replace(app, rng=random.Random(0))
        self.stages = Stages(setting.world, self.app)
        ticketer, poller = build_ticketer(self.app), build_poller(self.app)
        self.direct: Ticketer[Any] = ticketer_of(ticketer, "direct")
        self.starter: DirectStarter = _of_kind(self.direct.starter, DirectStarter)
        self.direct_leases: LeaseKeeper = _only(ticketer, LeaseKeeper)
        torrents = poller_of(poller, "direct")
        self.direct_follower: DownloadFollower = _of_kind(torrents.follower, DownloadFollower)
        self.follow = torrents.run_once
        self.clear = _once(poller, "leftovers")
        self.set_way(setting.way)
        ingest, watchdog = build_ingest(self.app), build_watchdog(self.app)
        web, consumer = _only(ingest, WebServer), _only(ingest, Consumer)
        self.handle = consumer.handle
        self.api = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=web.app), base_url="http://ingest", verify=False
        )
        self.scan_once = _watching(watchdog)
        self.relay = Relay(self.app.database, setting.wire)  # type: ignore[arg-type]
        self.gate = Gate()
        self.held: Held | None = None
        self._guard()

    def _guard(self) -> None:
        gate, stages = self.gate, self.stages
        messages, poller = _owner(self.handle), stages.follower
        client = stages.starter.remote.client
        gate.guard(client, "create", before="before the POST", after="after the POST")
        gate.guard(poller.remote, "follow", after="after reading")
        gate.guard(poller.remote.client, "cancel", before="before cancelling")
        gate.guard(stages.fetcher.recipe.collector, "candidates", before="before looking")
        gate.guard(stages.fetcher.recipe.collector, "collect", after="after collecting")
        gate.guard(stages.fetcher.recipe, "publish", before="before placing")
        gate.guard(stages.fetcher.outcomes, "fail", before="before failing")
        gate.guard(messages.requests.availability, "settle", after="after looking")
        torrents = self.starter.remote.client
        gate.guard(torrents, "search", before="before searching", after="after searching")
        gate.guard(torrents, "add_torrent", before="before adding", after="after adding")
        gate.guard(self.direct_follower.remote, "follow", after="after listing")
        gate.guard(_owner(self.clear).remote.client, "remove_torrent", before="before removing")

    def set_way(self, way: ModeName) -> None:
        """As after a restart with another ACQUISITION."""
        settings = self.app.settings.model_copy(update={"acquisition": way})
        app = replace(self.app, settings=settings)
        for starter in (self.stages.starter, self.starter):
            starter.choice = ModeChoice(app, starter.remote.client)

    async def step(self, worker: str) -> None:
        """One run of a worker, seen through to its end."""
        steps: dict[str, Callable[[], Awaitable[object]]] = {
            "ticketer": self.stages.ticket_once,
            "direct": self.direct_once,
            "poller": self.stages.poll_once,
            "torrents": self.follow,
            "leftovers": self.clear,
            "fetcher": self._fetch_once,
            "strays": self.stages.strays,
            "reaper": self.stages.give_back,
            "sweep": self.stages.sweep,
            "cleaning": self.stages.clean,
            "watchdog": self.scan_once,
            "leases": self._keep_leases,
        }
        await steps[worker]()

    async def _fetch_once(self) -> None:
        await self.stages.fetcher.run_once()
        await asyncio.gather(*self.stages.fetcher.working, return_exceptions=True)

    async def _keep_leases(self) -> None:
        for leases in (self.stages.leases, self.stages.ticket_leases, self.direct_leases):
            await leases.run_once()

    async def direct_once(self) -> None:
        """Fill the places of the direct ticketer, and see all of it through.

        Raises:
            Unavailable: as the next `run_once` would, for what one of them met.
        """
        await self.direct.run_once()
        await self.direct.finish()

    async def hold(self, held: Held, point: str) -> bool:
        """Let the worker run up to `point`; False when it ended without coming there."""
        arrived = asyncio.create_task(self.gate.arrived.wait())
        await asyncio.wait([held.task, arrived], return_when=asyncio.FIRST_COMPLETED)
        arrived.cancel()
        if self.gate.arrived.is_set():
            self.held = held
            return True
        self.gate.open()
        return False

    async def stop_held(self) -> None:
        """Cut the held worker short, as the end of a grace does: it hands back."""
        assert self.held is not None
        held, self.held = self.held, None
        in_work = [*self.stages.ticketer.working, *self.direct.working]
        tasks = [*in_work, *self.stages.fetcher.working, held.task]
        for task in tasks:
            task.cancel("stopping")
        await asyncio.gather(*tasks, return_exceptions=True)
        self.gate.open()

    async def close(self) -> None:
        await self.api.aclose()
        for close in self.app.closers:
            await close()
        await self.app.database.close()


def _owner(method: object) -> Any:
    """The object that a bound method belongs to."""
    return method.__self__  # type: ignore[attr-defined]


def _only(duties: list[Duty], kind: type[Any]) -> Any:
    return next(duty for duty in duties if isinstance(duty, kind))


def _of_kind(part: object, kind: type[Any]) -> Any:
    assert isinstance(part, kind)
    return part


def _once(duties: list[Duty], name: str) -> Callable[[], Awaitable[int]]:
    found = (each for each in duties if isinstance(each, PeriodicDuty) and each.name == name)
    return next(found).run_once


def _watching(duties: list[Duty]) -> Callable[[], Awaitable[int]]:
    for duty in duties:
        if isinstance(duty, PeriodicDuty) and isinstance(
            getattr(duty.run_once, "__self__", None), Watchdog
        ):
            return duty.run_once
    raise AssertionError("the watchdog has a loop")


@dataclass
class Setting:
    """What all runs share, and what each run begins with afresh."""

    world: World
    sql: asyncpg.Connection[asyncpg.Record]
    songs: dict[str, Path]
    bad: dict[str, Path]
    # What the indexers list.
    torrents: list[TorrentSpec]
    way: ModeName = "tickets"
    wire: Wire = field(default_factory=Wire)
    copies: list[Copy] = field(default_factory=list)

    async def begin(self) -> None:
        """Empty tables and folders, no tickets, two new copies."""
        await self.sql.execute(_EMPTY)
        tickets = self.world.standin.core.tickets
        for ticket in tickets.every():
            tickets.delete(ticket, by="a test")
        for name in ("media", "incoming", "downloads"):
            shutil.rmtree(self.world.folder / name, ignore_errors=True)
            (self.world.folder / name).mkdir()
        torrents = self.world.standin.core.torrents
        for torrent in torrents.every():
            torrents.remove(torrent.offer.info_hash)
        torrents.kept.clear()
        self.torrents.clear()
        self.calm()
        self.wire = Wire()
        self.copies = [Copy(self, "A"), Copy(self, "B")]

    def calm(self) -> None:
        """Nothing goes wrong at Torrentino any more."""
        faults = self.world.faults
        faults.update(dict.fromkeys(_COUNTS, 0) | {"down": False, "only": ""})
        faults.client_away = faults.searcher_away = False

    async def end(self) -> None:
        """Let go of what the run held."""
        for copy in self.copies:
            if copy.held is not None:
                await copy.stop_held()
            await copy.close()
        self.copies = []

    async def rows(self, sql: str, *args: object) -> list[Row]:
        return [dict(row) for row in await self.sql.fetch(sql, *args)]

    async def jump(self, seconds: float) -> None:
        """Let the database's clock be `seconds` later (earlier) than it was."""
        for statement in _JUMP:
            await self.sql.execute(statement, timedelta(seconds=seconds))

    async def next_day(self) -> None:
        """What was asked for until now was asked for yesterday."""
        await self.sql.execute("UPDATE requests SET created_at = created_at - interval '1 day'")


_COUNTS = ("database_locked", "database_locked_after_effect", "drop_before", "drop_after")

_EMPTY = """
DELETE FROM events; DELETE FROM item_requesters; DELETE FROM queue_items;
DELETE FROM refused_files; DELETE FROM tickets; DELETE FROM requests; DELETE FROM media_files;
DELETE FROM scans;
DELETE FROM conditions; DELETE FROM installation; DELETE FROM searches; DELETE FROM searches_made;
DELETE FROM not_found; DELETE FROM blocklist; DELETE FROM acquisition
"""

# The trigger on items says nothing of this: no stage changes.
_JUMP = (
    """
UPDATE queue_items SET due_at = due_at - $1::interval, lease_until = lease_until - $1::interval
 WHERE completed_at IS NULL
""",
    """
UPDATE tickets SET next_poll_at = next_poll_at - $1::interval,
                   progressed_at = progressed_at - $1::interval,
                   withdrawn_at = withdrawn_at - $1::interval,
                   adding_at = adding_at - $1::interval,
                   looked_at = CASE way WHEN 'direct' THEN looked_at - $1::interval
                                        ELSE looked_at END,
                   whole_at = whole_at - $1::interval, missing_at = missing_at - $1::interval,
                   closed_at = closed_at - $1::interval
""",
    "UPDATE scans SET lease_until = lease_until - $1::interval",
    """
UPDATE searches SET answered_at = answered_at - $1::interval,
                    lease_until = lease_until - $1::interval
""",
    "UPDATE searches_made SET at = at - $1::interval",
    "UPDATE not_found SET at = at - $1::interval, next_at = next_at - $1::interval",
    "UPDATE blocklist SET at = at - $1::interval",
)


@asynccontextmanager
async def setting(
    folder: Path, database_url: str, *, way: ModeName = "tickets"
) -> AsyncIterator[Setting]:
    """The stand-in, the catalog and the songs, for any number of runs."""
    for name in ("media", "incoming", "songs", "downloads"):
        (folder / name).mkdir(parents=True)
    songs = _songs(folder / "songs")
    _catalog(folder / "catalog.db")
    torrents: list[TorrentSpec] = []
    config = StandinConfig(
        orchestrator=False,
        downloads=folder / "downloads",
        decoys=False,
        download_s=0.0,
        checking_s=0.0,
        active_downloads=100,
    )
    async with Standin(config, Growing([], torrents)) as standin:
        world = World(
            folder=folder,
            database_url=database_url,
            nats=Nats(folder / "nats"),
            standin=standin,
            songs=[],
            env=_env(folder, database_url, standin.url) | _direct_env(folder, way),
        )
        sql = await asyncpg.connect(database_url)
        await sql.set_type_codec(
            "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
        )
        try:
            yield Setting(
                world=world,
                sql=sql,
                songs=songs,
                bad=_bad(folder / "songs"),
                torrents=torrents,
                way=way,
            )
        finally:
            await sql.close()
            world.drop_connections()


def _songs(folder: Path) -> dict[str, Path]:
    """A song of its own for each track, so that one in another's place is noticed."""
    tones = itertools.count(300, 60)
    return {
        track: make_audio(folder / f"{track}.flac", seconds=SECONDS, frequency=next(tones))
        for track in TRACKS
    }


def _bad(folder: Path) -> dict[str, Path]:
    long = make_audio(folder / "long.flac", seconds=WRONG_SECONDS)
    # Not so much longer that its size would tell.
    other = make_audio(folder / "other.flac", seconds=OTHER_SECONDS)
    return {
        "wrong length": long,
        "other": other,
        "cut": cut(folder / "cut.flac", folder / f"{TRACKS[0]}.flac"),
    }


def _catalog(path: Path) -> None:
    create_catalog(path)
    for album, numbers in ALBUMS.items():
        tracks = [
            {"id": track_id(n), "name": f"Song {n}", "duration_ms": int(SECONDS * 1000)}
            for n in numbers
        ]
        add_album(path, album_id=album, name=name_of(album), artist="The Testers", tracks=tracks)


def _env(folder: Path, database_url: str, torrentino: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "NATS_URL": "nats://127.0.0.1:1",
        "TORRENTINO_URL": torrentino,
        "TORRENTINO_DEST_ROOT": str(folder / "incoming"),
        "CATALOG_DB": str(folder / "catalog.db"),
        "MEDIA_PATH": str(folder / "media"),
        "BOOTSTRAP_ADMIN_KEY": ADMIN_KEY,
        "PORT": "0",
        "OPS_PORT": "0",
        "MIN_FREE_DISK_MB": "0",
        "DURATION_TOLERANCE_S": "1",
        # The model knows torrents of one file; the crash search meets those of albums.
        "TICKET_GROUPING": "track",
        "MAX_RETRIES": str(MAX_RETRIES),
        "USER_MAX_REQUESTS_PER_DAY": str(MAX_PER_DAY),
        "USER_MAX_QUEUE_SIZE": str(MAX_QUEUE),
        "STALL_TIMEOUT_S": str(STALL_S),
        "LEASE_S": str(LEASE_S),
    }


def _direct_env(folder: Path, way: ModeName) -> dict[str, str]:
    if way == "tickets":
        return {}
    return {
        "TORRENTINO_DOWNLOADS_ROOT": str(folder / "downloads"),
        "SEARCH_GAP_S": "0",
        "MAX_GRABS": str(MAX_GRABS),
    }


def headers(user: str | None) -> dict[str, str]:
    """Of a call by this user; None is the administrator."""
    return ADMIN if user is None else as_user(user)
