"""The stages of an item, run by hand: one step of one service at a time, nothing in between.

`Stages` wires ticketer, poller, fetcher-writer and reaper as their processes do, but it is the test
that calls their `run_once`. NATS is not connected: wake-ups are dropped and events stay in the
outbox, so what a test sees happened by the database alone.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from services.fetcher_writer.__main__ import build as build_fetcher_writer
from services.fetcher_writer.service import FetcherWriter
from services.local.servers import Nats
from services.local.torrentino import SongList, Standin, StandinConfig
from services.poller.__main__ import build as build_poller
from services.poller.service import Poller
from services.poller.tickets import TicketFollower
from services.reaper.__main__ import build as build_reaper
from services.ticketer.__main__ import build as build_ticketer
from services.ticketer.service import Ticketer
from services.ticketer.tickets import TicketStarter
from shared.acquisition.protocol import ModeName
from shared.app import App, make_app
from shared.catalog.models import Track
from shared.db.claims import Claim
from shared.db.enqueue import Kind, Request, enqueue, record_request
from shared.db.pool import Database
from shared.duty import Duty, PeriodicDuty
from shared.errors import Unavailable
from shared.leases import LeaseKeeper
from shared.media.tools import AudioTools
from shared.settings import SERVICES, Service
from shared.states import LEASED, TERMINAL, TRANSITIONS, Stage
from tests.support.databases import url_of
from tests.support.world import Row, World, album_id, eventually

D = TypeVar("D")

# The actor of moves that a test makes itself, to begin somewhere.
BY_TEST = "a test's own"


class Stages:
    """One copy of each worker; make several for several copies."""

    def __init__(
        self, world: World, app: App, *, tools: Callable[[], AudioTools] | None = None
    ) -> None:
        self.world = world
        self.app = app
        ticketer = build_ticketer(_with_the_login(app, "ticketer"))
        poller = build_poller(_with_the_login(app, "poller"))
        # How long the fetcher-writer would have waited for a lagging listing, and what to do then.
        self.waits: list[float] = []
        self.on_wait: Callable[[], None] = lambda: None
        fetcher = build_fetcher_writer(
            _with_the_login(app, "fetcher_writer"), tools=tools, sleep=self._waited
        )
        reaper = build_reaper(_with_the_login(app, "reaper"))
        self.ticketer = ticketer_of(ticketer, "tickets")
        self.starter = _of_kind(self.ticketer.starter, TicketStarter)
        tickets_poller = poller_of(poller, "tickets")
        self.follower = _of_kind(tickets_poller.follower, TicketFollower)
        self.poll_once = tickets_poller.run_once
        # Of the two; a test may replace their methods.
        self.ticket_client: Any = self.starter.remote.client
        self.poll_client: Any = self.follower.remote.client
        self.strays = _step(poller, "strays")
        self.clean = _step(fetcher, "cleaning")
        self.give_back = _step(reaper, "reaper leases")
        self.sweep = _step(reaper, "reaper sweep")
        self.prune = _step(reaper, "reaper prune")
        self.fetcher = _only(fetcher, FetcherWriter)
        self.leases = _only(fetcher, LeaseKeeper)
        self.ticket_leases = _only(ticketer, LeaseKeeper)

    async def _waited(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.on_wait()

    async def ticket(self) -> int:
        """One batch of the ticketer, of all that could be due."""
        await self.world.execute("UPDATE queue_items SET due_at = now() WHERE due_at > now()")
        return await self.ticket_once()

    async def ticket_once(self) -> int:
        """Fill the ticketer's places and see all of it through; how many items that were.

        Raises:
            Unavailable: as the next `run_once` would, for what one of them met.
        """
        claimed = await self.ticketer.run_once()
        await self.ticketer.finish()
        return claimed

    async def poll(self) -> None:
        """A look at every open ticket."""
        await self.world.execute("UPDATE tickets SET next_poll_at = now()")
        await self.poll_once()

    async def fetch(self) -> int:
        """Fetch all that is ready, to its end; how many items that were."""
        total = 0
        await self.world.execute("UPDATE queue_items SET due_at = now() WHERE stage = 'ready'")
        while claimed := await self.fetcher.run_once():
            total += claimed
            await asyncio.gather(*self.fetcher.working)
        return total

    async def until_remote(self, *states: str, within_s: float = 20) -> None:
        """Wait until every ticket of the stand-in is in one of these states."""

        async def others() -> set[str]:
            return {_state(ticket) for ticket in self.world.standin.tickets()} - set(states)

        await eventually(others, lambda left: not left, within_s=within_s)

    async def until_ready(self) -> None:
        """Ticket everything, let Torrentino work, and see that it is done."""
        await self.ticket()
        await self.until_remote("completed")
        await self.poll()

    def set_state(self, item: Row, **state: object) -> None:
        """Put the item's ticket into this state at the stand-in."""
        self.world.standin.set_state(item["torrentino_ticket_id"], state)


@asynccontextmanager
async def stages(
    world: World, tools: Callable[[], AudioTools] | None = None, /, **overrides: str
) -> AsyncIterator[Stages]:
    """Workers that only move when they are told to; `tools` gives the fetcher-writer ffmpeg."""
    app = make_app(world.settings(SERVICES, **overrides), name="by-hand")
    try:
        yield Stages(world, app, tools=tools)
    finally:
        for close in app.closers:
            await close()
        await app.database.close()


async def queue(
    world: World,
    tracks: Sequence[str],
    *,
    priority: int = 2,
    kind: Kind = "track",
    content_id: str = "somewhere",
    seconds: float = 8.0,
    artist: str = "The Testers",
    user_id: str | None = "42",
    album: int | None = None,
) -> str:
    """Put tracks into the queue as ingest does, with one request; returns the request's id.

    `album` is the number of the album that they are of, of which nothing more is known.
    """
    request = Request(
        id=str(uuid.uuid4()),
        user_id=user_id,
        kind=kind,
        content_id=content_id,
        content_name="A name",
        artist_name=artist,
        priority=priority,
        source="http",
    )
    database = Database(world.database_url)
    try:
        async with database.transaction() as connection:
            await record_request(connection, request, settled=False)
            await enqueue(
                connection,
                request,
                [catalog_track(id_, seconds=seconds, artist=artist, album=album) for id_ in tracks],
                actor="ingest",
            )
    finally:
        await database.close()
    return request.id


def catalog_track(id_: str, *, seconds: float, artist: str, album: int | None) -> Track:
    """The track as the catalog has it; its place on the album is the end of its number."""
    number = int(id_[1:])
    return Track(
        id=id_,
        name=f"Song {number}",
        artists=(artist,),
        album_id=None if album is None else album_id(album),
        album_name=None if album is None else f"Album {album}",
        album_artist=None if album is None else artist,
        disc_number=1,
        track_number=1 if album is None else number % 1000,
        duration_ms=int(seconds * 1000),
        isrc=None,
        popularity=None,
    )


_PUT_AT = """
UPDATE queue_items
   SET stage = $2, ticket_id = $3, actor = $4, reason = 'a reason', fence = new_fence(),
       completed_at = CASE WHEN $5 THEN 1 END, lease_owner = CASE WHEN $6 THEN 'a-worker' END,
       lease_until = CASE WHEN $6 THEN now() + interval '1 minute' END
 WHERE id = $1
"""


async def put_at(
    world: World, item_id: str, stage: Stage, *, ticket_id: str | None = None
) -> Claim:
    """Put an item into any stage, with what the schema wants of one there; the claim on it."""
    ended, leased = stage in TERMINAL, stage in LEASED
    await world.execute(_PUT_AT, item_id, stage, ticket_id, BY_TEST, ended, leased)
    [row] = await world.rows("SELECT fence FROM queue_items WHERE id = $1", item_id)
    return Claim(item_id=item_id, fence=row["fence"])


async def tickets(world: World) -> list[Row]:
    """Our rows of tickets, oldest first."""
    return await world.rows("SELECT * FROM tickets ORDER BY intended_at, id")


async def one(world: World) -> Row:
    """The only item."""
    (item,) = await world.items()
    return item


async def timeline(world: World, item_id: str | None = None) -> list[str]:
    """The stages that an item (None: the only one) went through."""
    rows = await world.rows(
        "SELECT stage FROM events WHERE kind = 'item' AND ($1::text IS NULL OR item_id = $1)"
        " ORDER BY seq",
        item_id,
    )
    return [row["stage"] for row in rows]


async def assert_lawful(world: World) -> None:
    """Every move that a service made is an edge of the transition table."""
    moves = await world.rows(
        "SELECT DISTINCT from_stage, stage FROM events"
        " WHERE kind = 'item' AND from_stage IS NOT NULL AND actor <> $1",
        BY_TEST,
    )
    unlawful = [
        (row["from_stage"], row["stage"])
        for row in moves
        if Stage(row["stage"]) not in TRANSITIONS[Stage(row["from_stage"])]
    ]
    assert unlawful == []


async def held_by(step: Callable[[], Awaitable[object]]) -> Unavailable | None:
    """The `Unavailable` that a step ends with, if it does."""
    try:
        await step()
    except Unavailable as held:
        return held
    return None


def in_audio(world: World) -> list[str]:
    """Every file below audio/, by name, whatever it is."""
    return sorted(path.name for path in world.placed())


def _with_the_login(app: App, service: Service) -> App:
    """The app with a pool of connections of its own, which have the rights of the service."""
    database = Database(url_of(service, app.settings.database_url.get_secret_value()))
    app.closers.append(database.close)
    return replace(app, database=database)


def _state(ticket: object) -> str:
    return str(ticket["state"]["type"])  # type: ignore[index]


def _step(duties: Sequence[Duty], name: str) -> Callable[[], Awaitable[int]]:
    found = (d for d in duties if isinstance(d, PeriodicDuty) and d.name == name)
    return next(found).run_once


def ticketer_of(duties: Sequence[Duty], mode: ModeName) -> Ticketer[Any]:
    """The ticketer of this mode among the duties."""
    return next(duty for duty in duties if isinstance(duty, Ticketer) and duty.starter.mode == mode)


def poller_of(duties: Sequence[Duty], mode: ModeName) -> Poller[Any, Any]:
    """The poller of this mode among the duties."""
    return next(duty for duty in duties if isinstance(duty, Poller) and duty.follower.mode == mode)


def _of_kind(part: object, kind: type[D]) -> D:
    assert isinstance(part, kind)
    return part


def _only(duties: Sequence[Duty], kind: type[D]) -> D:
    return next(duty for duty in duties if isinstance(duty, kind))


@contextmanager
def bare_world(folder: Path, database_url: str) -> Iterator[World]:
    """A world of a database and folders only: no NATS, and a Torrentino that does not answer."""
    for name in ("media", "incoming"):
        (folder / name).mkdir(parents=True)
    standin = Standin(StandinConfig(), SongList([]))
    world = World(
        folder=folder,
        database_url=database_url,
        nats=Nats(folder / "nats"),
        standin=standin,
        songs=[],
        env={
            "DATABASE_URL": database_url,
            "NATS_URL": "nats://127.0.0.1:1",
            "TORRENTINO_URL": "http://127.0.0.1:1/api/v1",
            "TORRENTINO_DEST_ROOT": str(folder / "incoming"),
            "CATALOG_DB": str(folder / "catalog.db"),
            "MEDIA_PATH": str(folder / "media"),
        },
    )
    yield world
    world.drop_connections()
    standin.core.database.close()
