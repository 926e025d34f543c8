"""Connections to Torrentino that are refused or cut, over real sockets."""

from __future__ import annotations

import asyncio

import pytest

from shared.errors import DependencyDown, OutcomeUnknown
from shared.torrentino.client import TorrentinoClient
from tests.unit.test_torrentino_client import REQUEST, Sleeps


async def test_a_refused_connection_means_nothing_was_sent(unused_tcp_port: int) -> None:
    """So even a create may simply be repeated."""
    base_url = f"http://127.0.0.1:{unused_tcp_port}/api/v1"
    client = TorrentinoClient(base_url=base_url, api_key=None, sleep=Sleeps())
    with pytest.raises(DependencyDown):
        await client.create(REQUEST)
    with pytest.raises(DependencyDown):
        await client.get("t1")
    await client.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{"])
async def test_a_connection_cut_after_sending_leaves_the_outcome_open(answer: bytes) -> None:
    """Before the first byte of the answer, or in the middle of it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = TorrentinoClient(base_url=f"http://127.0.0.1:{port}", api_key=None, sleep=Sleeps())
    with pytest.raises(OutcomeUnknown) as caught:
        await client.create(REQUEST)
    assert not caught.value.settled
    with pytest.raises(DependencyDown):
        await client.get("t1")
    await client.close()
    server.close()
    await server.wait_closed()
