"""SIGTERM in every stage: exit 0 within the grace, all finished or handed back, nothing waits.

The leases outlast the tests, so an item that is not handed back would not arrive in time.
LONG_OUTAGES=1 makes it twenty restarts instead of a few.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote

import asyncpg
import httpx
import nats
import psutil
import pytest

from services.ingest.consumer import DURABLE
from services.ingest.store.requests import LOCK_USER
from services.local.servers import free_port
from services.ticketer.intents import ONE_AT_A_TIME
from shared.bus.streams import ACK_WAIT_S
from shared.bus.subjects import REQUEST_TRACK, REQUESTS_STREAM
from shared.media.tools import find_tools
from shared.settings import SERVICES, Service
from tests.support.autoindex import Autoindex
from tests.support.ingest_helpers import V1, message
from tests.support.invariants import check_the_end
from tests.support.outcomes import Outcome, outcome
from tests.support.world import ADMIN, World, album_id, as_user, eventually

_SECONDS = 2.0
_GRACE_S = 5.0
_ENV = {"SHUTDOWN_GRACE_S": str(_GRACE_S), "LEASE_S": "600"}
_LONG = "LONG_OUTAGES" in os.environ
_RESTARTS = 20 if _LONG else 4

Process = asyncio.subprocess.Process


# --- what the tests share


@pytest.fixture
async def api(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API of any process; grace and leases are set for these tests."""
    world.env |= _ENV | {"PORT": str(free_port())}
    url = f"http://127.0.0.1:{world.env['PORT']}"
    async with httpx.AsyncClient(base_url=url, headers=ADMIN, timeout=30) as made:
        yield made


async def _others(world: World, service: Service) -> None:
    """All services but one, in this process."""
    await world.run(*(name for name in SERVICES if name != service))


async def _said(world: World, event: str, times: int = 1) -> None:
    """Wait until the spawned processes have logged an event so often."""
    log = world.folder / "services.log"

    async def found() -> int:
        return log.read_text().count(f'"event": "{event}"') if log.exists() else 0

    await eventually(found, lambda n: n >= times)


async def _exited(process: Process) -> None:
    """It has ended in order and in time: a process that hangs after the grace ends with 1."""
    assert await asyncio.wait_for(process.wait(), 4 * _GRACE_S) == 0


@asynccontextmanager
async def _locked(world: World, sql: str, *args: object) -> AsyncIterator[asyncpg.Connection]:
    """A transaction that keeps the locks of the statement while the block runs."""
    connection = await asyncpg.connect(world.database_url)
    try:
        async with connection.transaction():
            await connection.execute(sql, *args)
            yield connection
    finally:
        await connection.close()


async def _until_blocked(world: World, by: asyncpg.Connection, count: int = 1) -> None:
    """Wait until so many connections to this database wait for what `by` has locked."""
    blocked = "SELECT pid FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))"
    pid = by.get_server_pid()
    await eventually(lambda: world.rows(blocked, pid), lambda rows: len(rows) >= count)


async def _nothing_leased(world: World) -> None:
    """No lease and no temporary file of a process that has ended is left."""
    held = "SELECT id FROM queue_items WHERE lease_owner NOT LIKE 'test@%'"
    assert await world.rows(held) == []
    # The names before the rows: the services in this process continue meanwhile.
    parts = [path.name for path in (world.media / ".incoming").rglob("*.part")]
    placed = await world.rows("SELECT id FROM queue_items WHERE lease_owner IS NULL")
    idle = {row["id"] for row in placed}
    left = [name for name in parts if name.split(".")[0] in idle]
    await eventually(lambda: _gone(world, left))


async def _gone(world: World, names: Sequence[str]) -> bool:
    return not any((world.media / ".incoming" / name).exists() for name in names)


async def _finishes(
    world: World, service: Service, wanted: list[str], timed: Outcome, **env: str
) -> None:
    """The next start finishes the work, and no item waits for a lease."""
    await _nothing_leased(world)
    timed.removed()
    await world.spawn(service, **env)
    await world.until_ended(len(wanted), within_s=20)
    await check_the_end(world, wanted)


# --- one stage after the other


async def test_ticketer_in_its_claim(world: World, api: httpx.AsyncClient) -> None:
    """L-26: stopped while it claims, the ticketer handles the claimed items, or claims none."""
    wanted = world.add_album(1, 4, seconds=_SECONDS)
    async with outcome(world, "SIGTERM: ticketer claims") as timed:
        await _others(world, "ticketer")
        await api.post(f"{V1}/album/{album_id(1)}")
        async with _locked(world, ONE_AT_A_TIME) as lock:
            process = await world.spawn("ticketer")
            await _until_blocked(world, lock)
            process.terminate()
            await _said(world, "stopping")
        await _exited(process)
        await _finishes(world, "ticketer", wanted, timed)


@pytest.mark.parametrize("answer_s", [0.5, 30.0])
async def test_ticketer_in_its_calls(world: World, api: httpx.AsyncClient, answer_s: float) -> None:
    """L-26, L-33: calls that are answered are recorded; those cut short are found again."""
    wanted = world.add_album(1, 12, seconds=_SECONDS)
    async with outcome(world, f"SIGTERM: Torrentino answers in {answer_s:g} s") as timed:
        world.faults.delay_s, world.faults.delay_only = answer_s, "POST /tickets"
        await _others(world, "ticketer")
        await api.post(f"{V1}/album/{album_id(1)}")
        process = await world.spawn("ticketer")

        async def asked() -> int:
            return world.standin.requests["POST /tickets"]

        await eventually(asked, lambda count: count == 8)
        process.terminate()
        await _exited(process)
        world.faults.delay_s = 0
        waiting = [item for item in await world.items() if item["stage"] == "queued"]
        assert len(waiting) == (12 if answer_s > _GRACE_S else 0)
        # A request may be at work there for 15 s more; here it is known not to be.
        await world.execute("UPDATE queue_items SET due_at = now() WHERE stage = 'queued'")
        await _finishes(world, "ticketer", wanted, timed)
        assert len(world.standin.tickets()) == 12


async def test_poller_in_its_polls(world: World, api: httpx.AsyncClient) -> None:
    """L-26: stopped while Torrentino is slow to show tickets, the next process polls all."""
    wanted = world.add_album(1, 4, seconds=_SECONDS)
    async with outcome(world, "SIGTERM: poller polls") as timed:
        world.faults.delay_s, world.faults.delay_only = 30, "GET /tickets/{id}"
        await _others(world, "poller")
        await api.post(f"{V1}/album/{album_id(1)}")
        process = await world.spawn("poller")

        async def asked() -> int:
            return world.standin.requests["GET /tickets/{id}"]

        await eventually(asked)
        process.terminate()
        await _exited(process)
        world.faults.delay_s = 0
        put_off = "SELECT id FROM tickets WHERE next_poll_at > now() + interval '1 s'"
        assert await world.rows(put_off) == []
        await _finishes(world, "poller", wanted, timed)


class _Stalling(Autoindex):
    """Sends the first half of each file and then nothing more, until `resume` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.stalled = asyncio.Event()
        self.resume = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, _, v in (field.partition(": ") for field in line[1:-2])}
        whole = self._answer(unquote(line[0].split(" ")[1]), headers)
        try:
            if b"octet-stream" in whole and not self.resume.is_set():
                writer.write(whole[: len(whole) // 2])
                await writer.drain()
                self.stalled.set()
                await self.resume.wait()
                return
            writer.write(whole)
            await writer.drain()
        finally:
            writer.close()


async def test_fetcher_in_its_download(world: World, api: httpx.AsyncClient) -> None:
    """L-26, L-17: stopped in the middle of a download, no half of a file is left."""
    wanted = world.add_album(1, 2, seconds=_SECONDS)
    async with outcome(world, "SIGTERM: download") as timed, _Stalling(world.incoming) as server:
        world.env |= {"TORRENTINO_DELIVERY": "http", "TORRENTINO_FILES_URL": server.url}
        await _others(world, "fetcher_writer")
        await api.post(f"{V1}/album/{album_id(1)}")
        process = await world.spawn("fetcher_writer")
        await asyncio.wait_for(server.stalled.wait(), 20)
        process.terminate()
        await _exited(process)
        assert world.files() == {}
        await _nothing_leased(world)
        server.resume.set()
        timed.removed()
        await world.spawn("fetcher_writer")
        assert {i["status"] for i in await world.until_ended(2, within_s=20)} == {"COMPLETED"}
        assert set(world.files()) == set(wanted)


def _slow_ffmpeg(folder: Path, *, with_: str = "*") -> str:
    """A PATH whose ffmpeg never ends when it is called with such an argument.

    It reports its release, and does what it is told otherwise.
    """
    folder.mkdir()
    tools = find_tools()
    real = f'exec "{tools.ffmpeg}" "$@"'
    slow = f"""[ "$1" != -version ] || {real}
for each in "$@"; do case $each in {with_}) exec sleep 1000;; esac; done
{real}
"""
    for name, does in (("ffmpeg", slow), ("ffprobe", f'exec "{tools.ffprobe}" "$@"\n')):
        script = folder / name
        script.write_text(f"#!/bin/sh\n{does}")
        script.chmod(script.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return f"{folder}:{os.environ['PATH']}"


def _named(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""  # an ffprobe that has just ended


async def _at_work(
    world: World, api: httpx.AsyncClient, *, with_: str = "*", **env: str
) -> tuple[Process, list[psutil.Process]]:
    """A fetcher-writer in a decode, or a conversion, that does not end; its processes for it."""
    path = _slow_ffmpeg(world.folder / "bin", with_=with_)
    await _others(world, "fetcher_writer")
    process = await world.spawn("fetcher_writer", PATH=path, **env)
    await api.post(f"{V1}/album/{album_id(1)}")
    parent = psutil.Process(process.pid)

    async def decoders() -> list[psutil.Process]:
        return [child for child in parent.children() if _named(child) == "sleep"]

    return process, await eventually(decoders)


async def test_fetcher_in_a_long_decode(world: World, api: httpx.AsyncClient) -> None:
    """L-26: work that does not end within the grace is handed back; decoder and file are gone."""
    wanted = world.add_album(1, 1, seconds=_SECONDS)
    async with outcome(world, "SIGTERM: decode") as timed:
        process, decoders = await _at_work(world, api)
        process.terminate()
        await _exited(process)
        [item] = await world.items()
        assert (item["stage"], item["lease_until"]) == ("ready", None)
        assert not any(decoder.is_running() for decoder in decoders)
        await _finishes(world, "fetcher_writer", wanted, timed)


async def test_fetcher_in_a_long_conversion(world: World, api: httpx.AsyncClient) -> None:
    """L-26: the same for a file that is whole already and becomes what AUDIO_FORMAT asks for."""
    wanted = world.add_album(1, 1, seconds=_SECONDS)
    async with outcome(world, "SIGTERM: conversion") as timed:
        process, encoders = await _at_work(world, api, with_="-c:a", AUDIO_FORMAT="opus")
        assert [item["stage"] for item in await world.items()] == ["converting"]
        process.terminate()
        await _exited(process)
        [item] = await world.items()
        assert (item["stage"], item["lease_until"]) == ("ready", None)
        assert not any(encoder.is_running() for encoder in encoders)
        await _finishes(world, "fetcher_writer", wanted, timed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once(
    world: World, api: httpx.AsyncClient, number: signal.Signals
) -> None:
    """A second signal does not wait for the grace."""
    world.add_album(1, 1, seconds=_SECONDS)
    process, decoders = await _at_work(world, api, SHUTDOWN_GRACE_S="60")
    process.send_signal(signal.SIGTERM)
    await _said(world, "stopping")
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), 3) == -number
    for decoder in decoders:
        decoder.kill()


async def test_relay_in_its_publishing(world: World, api: httpx.AsyncClient) -> None:
    """L-26: stopped while NATS does not answer, the events stay, and are published once by id."""
    wanted = world.add_album(1, 4, seconds=_SECONDS)
    async with outcome(world, "SIGTERM: NATS is frozen") as timed:
        process = await world.spawn()
        await _asked(api)
        os.kill(world.nats.pid, signal.SIGSTOP)
        try:
            process.terminate()
            await _exited(process)
        finally:
            os.kill(world.nats.pid, signal.SIGCONT)
        await _nothing_leased(world)
        timed.removed()
        await world.spawn()
        await world.until_ended(4, within_s=20)
        await check_the_end(world, wanted)


async def _asked(api: httpx.AsyncClient) -> None:
    async def accepted() -> bool:
        try:
            return (await api.post(f"{V1}/album/{album_id(1)}")).is_success
        except httpx.HTTPError:
            return False

    await eventually(accepted)


# --- ingest


async def test_ingest_in_a_request(world: World, api: httpx.AsyncClient) -> None:
    """L-26: a request in hand is answered; a connection that is only kept open delays nothing."""
    wanted = world.add_album(1, 1, seconds=_SECONDS)
    async with outcome(world, "SIGTERM: HTTP request in hand") as timed:
        await _others(world, "ingest")
        process = await world.spawn("ingest")
        async with httpx.AsyncClient(base_url=api.base_url, headers=ADMIN) as idle:
            await _ready(idle)
            async with _locked(world, LOCK_USER, "7") as lock:
                asking = asyncio.create_task(
                    api.post(f"{V1}/track/{wanted[0]}", headers=as_user("7"))
                )
                await _until_blocked(world, lock)
                process.terminate()
                await _said(world, "stopping")
            assert (await asking).status_code == 202
            await _exited(process)
        await _finishes(world, "ingest", wanted, timed)


async def _ready(api: httpx.AsyncClient) -> None:
    async def answers() -> bool:
        try:
            return (await api.get(f"{V1}/limits")).is_success
        except httpx.HTTPError:
            return False

    await eventually(answers)


async def test_ingest_with_a_message(world: World, api: httpx.AsyncClient) -> None:
    """L-26: a message in hand at the end of the grace is delivered to the next one at once."""
    wanted = world.add_album(1, 1, seconds=_SECONDS)
    async with outcome(world, "SIGTERM: NATS message in hand") as timed:
        await _others(world, "ingest")
        process = await world.spawn("ingest")
        async with _locked(world, LOCK_USER, "7") as lock:
            await world.publish(REQUEST_TRACK, message(wanted[0], "7"))
            await _until_blocked(world, lock)
            process.terminate()
            await _exited(process)
        assert await world.items() == []
        timed.removed()
        await _take_and_give_back(world)
        await world.spawn("ingest")
        await world.until_ended(1)
        await check_the_end(world, wanted)


async def _take_and_give_back(world: World) -> None:
    """The message is delivered again long before NATS itself would do it."""
    client = await nats.connect(world.nats.url)
    try:
        stream = await client.jetstream().pull_subscribe_bind(DURABLE, REQUESTS_STREAM)
        [found] = await stream.fetch(1, timeout=ACK_WAIT_S / 4)
        await found.nak()
    finally:
        await client.drain()


# --- everything at once


async def test_all_while_the_database_hangs(world: World, api: httpx.AsyncClient) -> None:
    """L-26: each of the six, waiting for a locked table, ends within the grace."""
    wanted = world.add_album(1, 4, seconds=_SECONDS)
    async with outcome(world, "SIGTERM: PostgreSQL hangs") as timed:
        async with _locked(world, "LOCK TABLE queue_items, tickets, scans") as lock:
            processes = await asyncio.gather(*(world.spawn(name) for name in SERVICES))
            await eventually(lambda: _listening(processes))
            await _until_blocked(world, lock, len(SERVICES))
            for process in processes:
                process.terminate()
            await asyncio.gather(*(_exited(each) for each in processes))
        await _nothing_leased(world)
        timed.removed()
        await world.spawn()
        await _asked(api)
        await world.until_ended(4, within_s=20)
        await check_the_end(world, wanted)


async def _listening(processes: Sequence[Process]) -> bool:
    """Whether each of them has its own handler of SIGTERM by now."""
    status = [Path(f"/proc/{process.pid}/status").read_text() for process in processes]
    masks = [int(re.findall(r"SigCgt:\t(\w+)", text)[0], 16) for text in status]
    return all(mask & 1 << (signal.SIGTERM - 1) for mask in masks)


async def test_restarted_again_and_again(world: World, api: httpx.AsyncClient) -> None:
    """L-26: restarts in a row under load: all arrives once, and the history stays short."""
    wanted = world.add_album(1, 40, seconds=_SECONDS)
    rng = random.Random(26)
    async with outcome(world, f"{_RESTARTS} restarts in a row") as timed:
        world.env["MAX_TICKETS_IN_FLIGHT"] = "8"
        process = await world.spawn()
        await _asked(api)
        for number in range(1, _RESTARTS + 1):
            moved = number * 40 * 7 * 2 // (3 * _RESTARTS) - rng.randrange(10)
            await eventually(
                lambda: world.rows("SELECT 1 FROM events"),
                lambda rows, n=moved: len(rows) >= n,  # type: ignore[misc]
            )
            await eventually(lambda p=process: _listening([p]))  # type: ignore[misc]
            process.terminate()
            await _exited(process)
            await _nothing_leased(world)
            process = await world.spawn()
        timed.removed()
        await world.until_ended(40)
        await check_the_end(world, wanted)
        (moves,) = await world.rows("SELECT count(*) AS n FROM events WHERE kind = 'item'")
        # Seven for each item, and two more for each that a stop hands back.
        assert moves["n"] <= 40 * 9


@pytest.mark.skipif(not _LONG, reason="LONG_OUTAGES=1 waits for it")
@pytest.mark.parametrize("service", SERVICES)
async def test_one_service_restarted_again_and_again(
    world: World, api: httpx.AsyncClient, service: Service
) -> None:
    """L-26: twenty restarts of one service while the others work."""
    wanted = world.add_album(1, 40, seconds=_SECONDS)
    async with outcome(world, f"{_RESTARTS} restarts of {service}") as timed:
        await _others(world, service)
        world.env["MAX_TICKETS_IN_FLIGHT"] = "8"
        process = await world.spawn(service)
        await _asked(api)
        for _ in range(_RESTARTS):
            await eventually(lambda p=process: _listening([p]))  # type: ignore[misc]
            process.terminate()
            await _exited(process)
            await _nothing_leased(world)
            process = await world.spawn(service)
        timed.removed()
        await world.until_ended(40)
        await check_the_end(world, wanted)


# --- what cannot be stopped


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees where a thread of a service waits")
async def test_a_thread_that_hangs_does_not_keep_the_process(
    world: World, api: httpx.AsyncClient
) -> None:
    """A thread in a system call that never returns, as on a dead disk: exit 0, all handed back."""
    wanted = world.add_album(1, 1, seconds=_SECONDS)
    async with outcome(world, "SIGTERM: a disk call hangs") as timed:
        await _others(world, "fetcher_writer")
        await api.post(f"{V1}/album/{album_id(1)}")
        mark = world.media / ".incoming" / ".media-root"
        text = mark.read_bytes()
        mark.unlink()
        # Opening it waits for a writer, and there is none.
        os.mkfifo(mark)
        process = await world.spawn("fetcher_writer")
        await _hangs(process)
        process.terminate()
        await _exited(process)
        await _said(world, "stop_overdue")
        mark.unlink()
        mark.write_bytes(text)
        await _finishes(world, "fetcher_writer", wanted, timed)


async def _hangs(process: Process) -> None:
    """Wait until a thread of the process waits for the other end of a FIFO."""

    async def waiting() -> bool:
        tasks = Path(f"/proc/{process.pid}/task")
        return any("wait_for_partner" in (t / "wchan").read_text() for t in tasks.iterdir())

    await eventually(waiting)


_HUNG_LOOP = """
import asyncio, time
from shared.process import main

class Hung:
    name = "hung"

    async def run(self, stop):
        print("started", flush=True)
        await stop.wait()
        time.sleep(1000)

main({"reaper": lambda app: [Hung()]})
"""


async def test_a_loop_that_hangs_ends_with_an_error(world: World) -> None:
    """Where nothing can be handed back any more, the exit after the grace is an error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _HUNG_LOOP),
        env=os.environ | world.env | {"SHUTDOWN_GRACE_S": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        while await process.stdout.readline() != b"started\n":
            assert not process.stdout.at_eof()
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 5) == 1
        assert b'"handed_back": false' in await process.stdout.read()
    finally:
        if process.returncode is None:
            process.kill()
