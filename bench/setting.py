"""The environment of the benchmarks: as in the tests, but durable and without shortcuts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil

from services.local.postgres import Postgres
from services.local.servers import free_port
from services.local.torrentino import StandinConfig
from shared.db.migrate import migrate
from tests.support.world import ADMIN, World, eventually, make_world

# The contract's defaults of the settings that affect speed.
DEFAULTS = {
    "POLL_INTERVAL_S": "5",
    "SWEEP_INTERVAL_S": "5",
    "LEASE_S": "60",
    "MAX_TICKETS_IN_FLIGHT": "50",
}


@asynccontextmanager
async def bench_world(folder: Path) -> AsyncIterator[World]:
    """A world on a separate PostgreSQL that flushes to disk."""
    postgres = Postgres(folder / "postgres")
    await postgres.start()
    await migrate(postgres.url())
    config = StandinConfig(acquire_s=0, download_s=0.2, convert_s=0, place_s=0, tick_s=0.02)
    try:
        async with make_world(folder / "world", postgres.url(), config) as world:
            world.env |= DEFAULTS
            yield world
    finally:
        await postgres.stop()


@asynccontextmanager
async def services(world: World) -> AsyncIterator[tuple[httpx.AsyncClient, psutil.Process]]:
    """`run all` as one process; it answers on entry."""
    port = free_port()
    process = await world.spawn("all", PORT=str(port))  # type: ignore[arg-type]
    base = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=base, headers=ADMIN, timeout=60) as api:

        async def answers() -> bool:
            try:
                return (await api.get("/v1/download/limits")).is_success
            except httpx.TransportError:
                return False

        await eventually(answers)
        yield api, psutil.Process(process.pid)
    process.terminate()
    await process.wait()


def percentile(values: Sequence[float], share: float) -> float:
    """The value below or at which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def milliseconds(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the largest of durations in seconds, as ms."""
    return {
        "p50_ms": round(percentile(values, 0.5) * 1000, 1),
        "p99_ms": round(percentile(values, 0.99) * 1000, 1),
        "max_ms": round(max(values) * 1000, 1),
    }
