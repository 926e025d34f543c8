"""The addresses of the ops port are its own: the API's may be open to a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared.app import make_app
from shared.ops import OpsServer
from shared.web import AddressInUse
from tests.support.stages import bare_world


@asynccontextmanager
async def served(folder: Path, **overrides: str) -> AsyncIterator[int]:
    """An ops server that runs; its port."""
    with bare_world(folder, "postgresql://nobody@127.0.0.1:1/none") as world:
        app = make_app(world.settings(("reaper",), OPS_PORT="0", **overrides), name="test")
        ops, stop = OpsServer(app), asyncio.Event()
        running = asyncio.create_task(ops.run(stop))
        started = asyncio.create_task(ops.server.started.wait())
        await asyncio.wait([running, started], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        try:
            if running.done():
                await running
            yield ops.server.port
        finally:
            stop.set()
            await asyncio.gather(running, return_exceptions=True)


async def healthy(host: str, port: int) -> bool:
    """Whether /healthz answers at this address."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return False
    writer.write(b"GET /healthz HTTP/1.0\r\nHost: x\r\n\r\n")
    line = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    await writer.wait_closed()
    return line.split()[1] == b"200"


async def test_an_open_api_opens_no_ops_port(tmp_path: Path) -> None:
    """HOST is the API's: /metrics and /readyz stay on loopback."""
    async with served(tmp_path, HOST="0.0.0.0") as port:
        assert await healthy("127.0.0.1", port)
        assert not await healthy("127.0.0.2", port)


async def test_several_addresses_with_one_port(tmp_path: Path) -> None:
    """As in compose: loopback for the health check, and the address on the data network."""
    async with served(tmp_path, OPS_HOST="127.0.0.1, 127.0.0.2") as port:
        assert [await healthy(f"127.0.0.{n}", port) for n in (1, 2, 3)] == [True, True, False]


async def test_an_address_of_another_machine_is_one_line(tmp_path: Path) -> None:
    """It names OPS_HOST: another port would not help."""
    with pytest.raises(AddressInUse, match="OPS_HOST wants an address of this machine"):
        async with served(tmp_path, OPS_HOST="127.0.0.1,192.0.2.1"):
            pytest.fail("it cannot listen there")
