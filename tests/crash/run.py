"""Carries out one schedule: real processes that die at their points, until all work is over."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from services.local.torrentino import StandinConfig
from tests.crash.direct_work import TOLERANCE_S, DirectWork
from tests.crash.schedule import Away, Kill, Process, Schedule
from tests.crash.work import SECONDS, Asking, Work
from tests.crash.zygote import Forked, Start, Zygote
from tests.support.autoindex import Autoindex
from tests.support.invariants import check_always, check_the_end, watching
from tests.support.published import all_are_named, named_files_are_whole
from tests.support.world import World, make_world

_QUICK = {
    "LEASE_S": "1",
    "POLL_INTERVAL_S": "0.2",
    "SWEEP_INTERVAL_S": "0.4",
    "RETRY_INITIAL_S": "0.1",
    "LOG_FORMAT": "console",
    # No server has the catalog open.
    "BRIDGE_CATALOG_WRITE": "true",
    "BRIDGE_SERVER_STOPPED": "true",
}
_STANDIN = StandinConfig(
    acquire_s=0.0,
    download_s=0.05,
    convert_s=0.0,
    place_s=0.0,
    tick_s=0.02,
    decoys=False,
    # What is made to hang takes no place that others wait for.
    active_downloads=10,
)
_ALL_OVER_S = 100.0
_REFUSED = "ticketer.refused"
_BUG = re.compile(
    r"duty_failed|fetch_failed|fetch_broke|message_failed|look_failed|not_published|ticket_failed"
)


@dataclass
class Result:
    """What a schedule came to; it failed when `error` is set."""

    schedule: Schedule
    took_s: float = 0.0
    # From the last death to the end of all work.
    recovery_s: float = 0.0
    deaths: list[str] = field(default_factory=list)
    reached: set[str] = field(default_factory=set)
    error: BaseException | None = None

    @property
    def missed(self) -> list[str]:
        """The points at which it was to kill, and did not, because no process reached them."""
        return [point for point in self.schedule.points if point not in self.deaths]


async def run(schedule: Schedule, zygote: Zygote, folder: Path, database_url: str) -> Result:
    """Run it in a world of its own; an error of the services or of an invariant is in the result.

    What the services logged stays in `folder`.
    """
    result, started = Result(schedule), time.monotonic()
    try:
        standin = replace(_STANDIN, client=schedule.client)
        async with make_world(folder, database_url, standin) as world, _delivered(world, schedule):
            await _Run(schedule, zygote, world, result).carry_out()
    except Exception as error:  # noqa: BLE001 (it is what the search looks for)
        result.error = error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Something within was cancelled by nobody who waits for it.
        result.error = error
    result.took_s = time.monotonic() - started
    return result


@asynccontextmanager
async def _delivered(world: World, schedule: Schedule) -> AsyncIterator[None]:
    """Make finished downloads come as the schedule says: see `Delivery`."""
    world.env |= _QUICK | {"PORT": str(_port())} | _album_settings(world, schedule)
    async with AsyncExitStack() as stack:
        if schedule.delivery == "http":
            server = await stack.enter_async_context(Autoindex(world.incoming))
            world.env |= {"TORRENTINO_DELIVERY": "http", "TORRENTINO_FILES_URL": server.url}
        elif schedule.delivery == "copy":
            elsewhere = Path(tempfile.mkdtemp(prefix="pezzottify-crash-", dir=_other_filesystem()))
            stack.callback(shutil.rmtree, elsewhere, ignore_errors=True)
            world.incoming.rmdir()
            world.incoming.symlink_to(elsewhere)
        yield


def _album_settings(world: World, schedule: Schedule) -> dict[str, str]:
    """What there is to be met of albums, of conversion, and of cleaning up behind both."""
    if schedule.plain and schedule.delivery != "direct":
        return {}
    albums = {"TICKET_GROUPING": "auto"}
    match schedule.delivery:
        case "torrent":
            return albums | {"TORRENTINO_DOWNLOADS_ROOT": str(world.downloads)}
        case "copy":
            converted = {"AUDIO_FORMAT": "opus", "AUDIO_KEEP_SOURCE": "true"}
            return albums | converted | {"TORRENTINO_CLEANUP": "torrent"}
        case "link":
            return albums | {"TORRENTINO_CLEANUP": "ticket"}
        case "direct":
            return albums | {
                "ACQUISITION": "direct",
                "TORRENTINO_DOWNLOADS_ROOT": str(world.downloads),
                "DOWNLOAD_CLEANUP": schedule.cleanup,
                "DURATION_TOLERANCE_S": str(TOLERANCE_S),
                "SEARCH_GAP_S": "0",
                # What is held until something happens to it must not count as stalled.
                "STALL_TIMEOUT_S": "5",
            }
    return albums


def logs_of(folder: Path) -> list[Path]:
    """What the processes of a run logged, in the order of the schedule."""
    return sorted(folder.glob("services-*.log"))


def _port() -> int:
    """A port that stays free over restarts: no outgoing connection is ever given one of these."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("a hundred ports are taken")


def _other_filesystem() -> Path:
    shared_memory = Path("/dev/shm")
    assert shared_memory.is_dir(), "copying needs a second filesystem at /dev/shm"
    return shared_memory


class _Run:
    def __init__(self, schedule: Schedule, zygote: Zygote, world: World, result: Result) -> None:
        self._schedule = schedule
        self._zygote = zygote
        self._world = world
        self._result = result
        self._work = _work(schedule, world)
        self._last_death = time.monotonic()
        # Processes have died, or stood still for longer than they hold anything.
        self._deaths = sum(process.freeze is not None for process in schedule.processes)

    async def carry_out(self) -> None:
        """Let everything happen, and check the invariants at every death and at the end."""
        await self._work.prepare()
        try:
            async with self._watching(), asyncio.timeout(_ALL_OVER_S):
                await self._live_and_die()
        finally:
            await self._work.close()
            self._result.reached = self._notes("")

    def _watching(self) -> AbstractAsyncContextManager[object]:
        return watching(
            self._world,
            seconds=SECONDS,
            also=self._work.broken_now,
            originals=self._world.audio if self._schedule.delivery == "direct" else None,
        )

    async def _live_and_die(self) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._keep_alive(process, place))
                for place, process in enumerate(self._schedule.processes)
            ]
            if self._schedule.nats_killed_at_s is not None:
                tasks.append(group.create_task(self._lose_nats(self._schedule.nats_killed_at_s)))
            if self._schedule.away is not None:
                tasks.append(group.create_task(self._lose_what_is_behind(*self._schedule.away)))
            await self._work.ask()
            await self._work.until_over()
            self._result.recovery_s = time.monotonic() - self._last_death
            # The services go on: they have to clean up.
            await check_the_end(
                self._world,
                self._work.wanted,
                burned=self._work.burned + self._refusals,
                folders_stay=self._schedule.delivery == "http",
                adopted=self._work.adopted,
            )
            await self._work.check_the_end(deaths=self._deaths)
            await all_are_named(self._world)
            self._no_bugs()
            for task in tasks:
                task.cancel()

    def _no_bugs(self) -> None:
        """What the services log of our own mistakes, which they survive."""
        logs = [path.read_text(errors="replace") for path in logs_of(self._world.folder)]
        said = [line for log in logs for line in log.splitlines() if _BUG.search(line)]
        assert said == [], said

    @property
    def _refusals(self) -> int:
        return self._schedule.points.count(_REFUSED)

    def _notes(self, prefix: str) -> set[str]:
        lines = self._reached.read_text().splitlines() if self._reached.exists() else []
        return {line.removeprefix(prefix) for line in lines if line.startswith(prefix)}

    @property
    def _reached(self) -> Path:
        return self._world.folder / "reached"

    async def _keep_alive(self, process: Process, place: int) -> None:
        """Start the process, and again whenever it was killed, until cancelled."""
        pending, first = list(process.kills), True
        while True:
            forked = await self._start(process, place, _next(process, pending), first=first)
            try:
                status = await self._until_dead(forked, process.killed_at_s if first else None)
            finally:
                forked.send(signal.SIGKILL)
                await asyncio.shield(forked.ended)
            assert status == -signal.SIGKILL, f"{process.services} ended by itself with {status}"
            self._last_death, first = time.monotonic(), False
            self._deaths += 1
            pending = self._mourn(pending)
            await check_always(self._world)
            await named_files_are_whole(self._world)

    def _mourn(self, pending: Sequence[Kill]) -> list[Kill]:
        """Note at which points processes died; returns the kills that are still to come."""
        killed = self._notes("killed ")
        self._result.deaths += sorted(killed - set(self._result.deaths))
        return [kill for kill in pending if kill[0] not in killed]

    async def _start(
        self, process: Process, place: int, kills: Sequence[Kill], *, first: bool
    ) -> Forked:
        env = dict(self._world.env)
        if place > 0 and "ingest" in process.services and "ingest" in self._first_services:
            env["PORT"] = "0"  # a second one would be in its way
        return await self._zygote.fork(
            Start(
                services=process.services,
                env=env,
                log=str(self._world.folder / f"services-{place}.log"),
                reached=str(self._reached),
                kills=kills,
                freeze=process.freeze if first else None,
                refused=first and _REFUSED in (point for point, _ in kills),
                deaf=self._schedule.deaf,
                bug=self._schedule.bug,
            )
        )

    @property
    def _first_services(self) -> Sequence[str]:
        return self._schedule.processes[0].services

    async def _until_dead(self, forked: Forked, kill_at_s: float | None) -> int:
        ended = asyncio.shield(forked.ended)
        if kill_at_s is not None:
            done, _ = await asyncio.wait([ended], timeout=kill_at_s)
            if not done:
                forked.send(signal.SIGKILL)
        return await ended

    async def _lose_nats(self, at_s: float) -> None:
        """Kill NATS and start it again: what is on its way at that moment is lost."""
        await asyncio.sleep(at_s)
        await self._world.nats.kill()
        await self._world.nats.start()
        self._last_death = time.monotonic()

    async def _lose_what_is_behind(self, what: Away, at_s: float, for_s: float) -> None:
        """Let Torrentino's client, or its indexers, be away for a while."""
        await self._work.begun.wait()
        await asyncio.sleep(at_s)
        faults, searches = self._world.faults, self._world.standin.searches
        asked, added = len(searches), self._work.adds
        setattr(faults, what, True)
        await asyncio.sleep(for_s)
        setattr(faults, what, False)
        self._work.excuse(searches[asked:], adds=self._work.adds - added)
        self._last_death = time.monotonic()


def _work(schedule: Schedule, world: World) -> Asking:
    if schedule.delivery == "direct":
        return DirectWork(world, plain=schedule.plain, cleanup=schedule.cleanup)
    sees_torrents = schedule.delivery == "torrent" and _REFUSED not in schedule.points
    return Work(world, plain=schedule.plain, unclear=sees_torrents)


def _next(process: Process, pending: Sequence[Kill]) -> Sequence[Kill]:
    return pending[:1] if process.in_turn else pending
