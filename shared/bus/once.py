"""A connection to NATS for one command."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from nats.aio.client import Client

from shared.bus import access
from shared.bus.nats import translated

_CONNECT_TIMEOUT_S = 5


@asynccontextmanager
async def once_connected(urls: str, *, ca_file: Path | None) -> AsyncIterator[Client]:
    """A connection for one command, which does not wait for a server that is away.

    Raises:
        DependencyDown: NATS is away, or forbids what the block does.
    """
    servers = [url.strip() for url in urls.split(",")]
    client = access.StrictClient()
    with translated():
        await client.connect(
            servers=servers,
            inbox_prefix=access.inbox_prefix(servers),
            tls=access.tls_context(ca_file),
            connect_timeout=_CONNECT_TIMEOUT_S,
            allow_reconnect=False,
        )
        try:
            yield client
        finally:
            await access.to_the_end(client.close())
