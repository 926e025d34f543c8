"""What holds at every moment, whatever is killed, and what holds when all work is over."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.reaper.service import Reaper
from services.reaper.store import Store
from shared.bus.nats import Bus
from shared.clock import SystemClock
from shared.db.installation import MediaRoot
from shared.db.pool import Database
from shared.health import Health
from shared.media.tools import find_tools
from shared.media.verify import verify
from shared.states import TRANSITIONS, Stage
from tests.world import Row, World, eventually

_LOOK_S = 0.05


class Watch:
    """Looks at the files and at the stand-in again and again; `broken` says what it saw."""

    def __init__(self, world: World, *, seconds: float) -> None:
        self._world = world
        self._expected_ms = int(seconds * 1000)
        self._whole: set[str] = set()
        self._seen: set[tuple[Path, int]] = set()
        self.looks = 0
        self.broken: list[str] = []

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """Look once."""
        self.looks += 1
        self._tickets()
        for path in await asyncio.to_thread(self._files):
            await self._file(path)

    def _tickets(self) -> None:
        live = Counter(
            str(ticket["query_context"]["description"]) for ticket in self._world.live_tickets()
        )
        self.broken += [f"{n} live tickets for {what}" for what, n in live.items() if n > 1]

    def _files(self) -> list[Path]:
        """The files that appeared since the last look; two of one track are noted."""
        found = [p for p in (self._world.media / "audio").rglob("*") if p.is_file()]
        self.broken += [
            f"{n} files of {stem}" for stem, n in Counter(p.stem for p in found).items() if n > 1
        ]
        new = [p for p in found if (p, p.stat().st_ino) not in self._seen]
        self._seen |= {(p, p.stat().st_ino) for p in new}
        return new

    async def _file(self, path: Path) -> None:
        """Decode the file to its end, once for all copies of the same bytes."""
        digest = await asyncio.to_thread(_digest, path)
        if digest in self._whole:
            return
        try:
            await verify(path, expected_ms=self._expected_ms, tolerance_s=1, tools=find_tools())
        except Exception as error:  # noqa: BLE001 (whatever it is, the file was visible)
            self.broken.append(f"{path} is not whole: {error}")
        else:
            self._whole.add(digest)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@asynccontextmanager
async def watching(world: World, *, seconds: float) -> AsyncIterator[Watch]:
    """Watch while the block runs; what was seen broken fails the test at its end."""
    watch = Watch(world, seconds=seconds)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled(), task.exception()
    await watch.look()
    assert watch.broken == []


async def check_the_end(world: World, wanted: list[str]) -> None:
    """All work is over: every wanted track arrived, and nothing is left behind."""
    items = await world.items()
    done = {item["track_id"] for item in items if item["status"] == "COMPLETED"}
    assert done == set(wanted)
    assert set(world.files()) == done
    await _ledger(world, done)
    await _ready_events(world, done)
    await _history(world, items)
    await _nothing_left(world)


async def _ledger(world: World, done: set[str]) -> None:
    for row in await world.rows("SELECT track_id, audio_uri, size_bytes, sha256 FROM media_files"):
        path = world.media / row["audio_uri"]
        assert path.stat().st_size == row["size_bytes"]
        assert _digest(path) == row["sha256"]
        done = done - {row["track_id"]}
    assert done == set(), "completed without a ledger row"


async def _ready_events(world: World, done: set[str]) -> None:
    """Every completed item has its audio.ready in the stream, under one event id."""

    async def ready() -> dict[str, set[str]]:
        ids = defaultdict(set)
        for event in await world.events("audio.ready.*"):
            ids[event["body"]["track_id"]].add(event["body"]["event_id"])
        return ids

    found = await eventually(ready, lambda ids: set(ids) >= done)
    assert set(found) == done
    assert {track: len(ids) for track, ids in found.items() if len(ids) != 1} == {}


async def _history(world: World, items: list[Row]) -> None:
    """From its arrival to its row, every move of an item is in its history, and is allowed."""
    moves = await world.rows(
        "SELECT item_id, from_stage, stage FROM events WHERE kind = 'item' ORDER BY seq"
    )
    at: dict[str, str | None] = {}
    for move in moves:
        assert move["from_stage"] == at.get(move["item_id"]), f"a gap before {move}"
        if move["from_stage"] is not None:
            assert Stage(move["stage"]) in TRANSITIONS[Stage(move["from_stage"])], move
        at[move["item_id"]] = move["stage"]
    assert at == {item["id"]: item["stage"] for item in items}


async def _nothing_left(world: World) -> None:
    """After the sweep: no temporary file, no lease, no open ticket, no incoming folder."""
    assert world.live_tickets() == []
    held = "SELECT id, stage FROM queue_items WHERE lease_until IS NOT NULL"
    assert await world.rows(held) == []
    open_ = "SELECT id, state FROM tickets WHERE state <> 'closed'"
    await eventually(lambda: world.rows(open_), lambda rows: not rows)
    await sweep(world)
    temporary = world.media / ".incoming"
    assert [path.name for path in temporary.rglob("*.part")] == []

    async def incoming() -> list[Path]:
        return list(world.incoming.iterdir())

    await eventually(incoming, lambda folders: not folders)


async def sweep(world: World) -> None:
    """The reaper's sweep, without the age that it waits for."""
    database = Database(world.database_url)
    try:
        reaper = Reaper(
            store=Store(database),
            root=MediaRoot(database, world.media),
            bus=Bus(world.nats.url, name="test", health=Health(SystemClock())),
            relay_wake=asyncio.Event(),
            retention_s=86_400,
            temp_age_s=0,
        )
        await reaper.sweep()
    finally:
        await database.close()
