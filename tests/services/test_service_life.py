"""How each service starts, answers operators, and stops."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import shutil
import socket
import sys
import warnings
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from services.local.servers import free_port
from shared import metrics
from shared.settings import SERVICES, Service
from tests.support.ingest_helpers import ask_album, serve
from tests.support.world import ADMIN, ADMIN_KEY, World, album_id, eventually, free_ops_port

_SECONDS = 2.0
_GRACE_S = 4.0


async def _module(service: str, env: dict[str, str]) -> tuple[int | None, str]:
    """Run `python -m services.<service>` to its end; the exit code and its output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"services.{service}"),
        env={"PATH": os.environ["PATH"], **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode()


async def _started(ops_port: str) -> None:
    async def ready() -> int:
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"http://127.0.0.1:{ops_port}/readyz")).status_code
        except httpx.HTTPError:
            return 0

    await eventually(ready, lambda status: status == 200)


async def _terminated(process: asyncio.subprocess.Process) -> float:
    """Send SIGTERM; the seconds until the exit, which is with 0."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    process.terminate()
    code = await asyncio.wait_for(process.wait(), 30)
    assert code == 0
    return loop.time() - started


async def test_wrong_settings_are_one_line_each() -> None:
    """A start with missing and unusable variables names each in a line, and no traceback."""
    env = {
        "NATS_URL": "http://me:secret@nowhere",
        "TORRENTINO_URL": "torrentino",
        "LEASE_S": "soon",
        "OPS_PORT": "123456",
    }
    code, output = await _module("ticketer", env)
    assert code == 1
    lines = output.splitlines()
    assert [line.split(":")[0] for line in sorted(lines)] == [
        *("DATABASE_URL", "LEASE_S", "NATS_URL", "OPS_PORT", "TORRENTINO_URL")
    ]
    assert all("wants" in line for line in lines)
    assert "secret" not in output


async def test_nothing_set_is_one_line_each() -> None:
    """Each service names all missing variables at once."""
    for code, output in await asyncio.gather(*(_module(service, {}) for service in SERVICES)):
        assert code == 1
        assert {"DATABASE_URL", "NATS_URL"} <= {line.split(":")[0] for line in output.splitlines()}
        assert "Traceback" not in output


async def test_a_port_in_use_is_one_line(world: World) -> None:
    """A port that is taken ends the start with one line that names its variable."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for variable, service in (("OPS_PORT", "reaper"), ("PORT", "ingest")):
            code, output = await _module(service, world.env | {variable: port})
            assert code == 1
            [line] = [line for line in output.splitlines() if not line.startswith("{")]
            assert line.startswith(f"{variable}: cannot listen on 127.0.0.1:{port}")


@pytest.mark.parametrize("service", SERVICES)
async def test_answers_operators_and_stops_in_work(world: World, service: Service) -> None:
    """L-26: it reports its health; SIGTERM in work: exit 0 within the grace, no lease is left."""
    world.add_album(1, 10, seconds=_SECONDS)
    ops, grace = free_ops_port(), {"SHUTDOWN_GRACE_S": str(_GRACE_S), "LEASE_S": "60"}
    world.env["PORT"] = str(free_port())
    others = await world.run(*(name for name in SERVICES if name != service))
    process = await world.spawn(service, OPS_PORT=ops, **grace)
    await _started(ops)
    await _answers_operators(ops)
    async with httpx.AsyncClient(headers=ADMIN) as api:
        base = f"http://127.0.0.1:{world.env['PORT']}/v1/download"
        await api.post(f"{base}/album/{album_id(1)}")
        await eventually(lambda: world.rows("SELECT 1 FROM events"), lambda rows: len(rows) > 30)
        assert await _terminated(process) < _GRACE_S
    held = "SELECT id, lease_owner FROM queue_items WHERE lease_owner NOT LIKE 'test@%'"
    assert await world.rows(held) == []
    await world.spawn(service, **grace)
    items = await world.until_ended(10)
    assert {(item["status"], item["retry_count"]) for item in items} == {("COMPLETED", 0)}
    await others.end()


async def _answers_operators(ops_port: str) -> None:
    """/healthz, /readyz and /metrics answer; every declared metric is there, and no other."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ops_port}") as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        ready = (await client.get("/readyz")).json()
        assert ready["ready"] is True
        assert ready["checks"]["postgres"]["ok"] is True
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found = {
        family.name
        for family in text_string_to_metric_families(answer.text)
        if not family.name.startswith(("python_", "process_"))
    }
    kinds = (Counter, Gauge, Histogram)
    assert found == {
        family.name
        for metric in vars(metrics).values()
        if isinstance(metric, kinds)
        for family in metric.describe()
    }


async def test_readyz_shows_what_is_missing(world: World) -> None:
    """Without PostgreSQL: 503, with the check that failed; no password in it."""
    ops = free_ops_port()
    url = f"postgresql://me:the-password@127.0.0.1:{free_port()}/x"
    await world.spawn("reaper", OPS_PORT=ops, DATABASE_URL=url)

    async def answer() -> httpx.Response | None:
        try:
            async with httpx.AsyncClient() as client:
                return await client.get(f"http://127.0.0.1:{ops}/readyz")
        except httpx.HTTPError:
            return None

    ready = await eventually(answer, lambda got: got is not None)
    assert ready is not None
    assert ready.status_code == 503
    assert ready.json()["ready"] is False
    assert ready.json()["checks"]["postgres"]["ok"] is False
    assert "the-password" not in ready.text
    assert "the-password" not in (world.folder / "services.log").read_text()


async def test_not_ready_before_what_the_settings_name_was_there(world: World) -> None:
    """F11: no catalog, no mount: 503 that names it; ready when it was there once, and then on."""
    ops, mount = free_ops_port(), world.folder / "mount"
    missing = {"CATALOG_DB": str(world.folder / "nope.db"), "TORRENTINO_DEST_MOUNT": str(mount)}
    await world.spawn(OPS_PORT=ops, PORT=str(free_port()), **missing)

    async def answer() -> dict[str, Any]:
        try:
            async with httpx.AsyncClient() as client:
                found = await client.get(f"http://127.0.0.1:{ops}/readyz")
        except httpx.HTTPError:
            return {}
        assert found.status_code == (200 if found.json()["ready"] else 503)
        return cast("dict[str, Any]", found.json())

    def shown(found: dict[str, Any]) -> bool:
        """Each was checked, by itself: the media root is there, and what is missing is named."""
        details = [found["checks"][name]["detail"] for name in ("catalog", "incoming")]
        named = "correct CATALOG_DB" in details[0] and "TORRENTINO_DEST_MOUNT" in details[1]
        return named and bool(found["checks"]["media"]["ok"])

    seen = await eventually(answer, lambda found: bool(found) and shown(found))
    assert not seen["ready"]
    mount.mkdir()
    shutil.copy(world.catalog, world.folder / "nope.db")
    await eventually(answer, lambda found: found["ready"])
    mount.rename(mount.with_name("away"))
    assert (await answer())["ready"]


async def test_logs_are_json_with_item_ids_and_without_secrets(world: World) -> None:
    """Every line is one JSON object; what happens to an item names it; no key is in any of them."""
    world.add_album(1, 2, seconds=_SECONDS)
    world.env["PORT"] = str(free_port())
    passwords = [urlsplit(url) for url in (world.database_url, world.nats.url)]
    process = await world.spawn(TORRENTINO_API_KEY="a-torrentino-key", LOG_LEVEL="debug")
    async with httpx.AsyncClient(headers=ADMIN) as api:

        async def asked() -> bool:
            url = f"http://127.0.0.1:{world.env['PORT']}/v1/download/album/{album_id(1)}"
            try:
                return (await api.post(url)).is_success
            except httpx.HTTPError:
                return False

        await eventually(asked)
    await world.until_ended(2)
    await world.nats.kill()
    await world.execute("ALTER TABLE queue_items RENAME TO away")
    log = world.folder / "services.log"

    async def complained() -> bool:
        return "dependency_down" in log.read_text() and "postgres" in log.read_text()

    await eventually(complained)
    await _terminated(process)
    text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert all({"event", "level", "timestamp"} <= set(line) for line in lines), lines
    about_items = [line for line in lines if line["event"] in ("ticket", "file_placed")]
    assert len(about_items) == 4
    named = [line.get("item_ids") or [line["item_id"]] for line in about_items]
    assert all(re.fullmatch(r"[0-9a-f-]{36}", id_) for ids in named for id_ in ids)
    hidden = [url.password or url.username for url in passwords]
    for secret in (ADMIN_KEY, "a-torrentino-key", *hidden):
        assert secret
        assert secret not in text


async def test_no_connection_is_left_open_at_the_end(world: World) -> None:
    """Those to servers and to clients: the collector would name them."""
    world.add_album(1, 2, seconds=_SECONDS)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ResourceWarning)
        api = await serve(world, *SERVICES)
        await ask_album(api, album_id(1))
        await world.until_ended(2)
        await world.close()
        del api
        gc.collect()
    assert [str(each.message) for each in said] == []
