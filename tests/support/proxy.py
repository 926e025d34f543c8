"""A TCP proxy whose network goes wrong on demand, between a service and a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal
from urllib.parse import urlsplit

Way = Literal["up", "down"]
Moment = Literal["before", "after"]

_CHUNK = 65_536
_COMMIT = b"COMMIT;\x00"


class _Link:
    """One connection through the proxy."""

    def __init__(self, up: asyncio.StreamWriter, down: asyncio.StreamWriter) -> None:
        self.writers: dict[Way, asyncio.StreamWriter] = {"up": up, "down": down}
        # The answer on its way is to be lost, and the connection with it.
        self.loses_answer = False

    def cut(self) -> None:
        for writer in self.writers.values():
            writer.transport.abort()


class Proxy:
    """Forwards to 127.0.0.1:`target_port`; "up" is towards the server, "down" its answers."""

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self.port = 0
        # Chunks of data that wait because nothing is let through.
        self.held = 0
        self.delay_s = 0.0
        # Bytes of answers after which a connection is cut; None: never.
        self.cut_after: int | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows: dict[Way, asyncio.Event] = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._server: asyncio.Server | None = None
        self._commit: tuple[Moment, int] | None = None
        self.commit_lost = asyncio.Event()
        self.flow()

    async def listen(self) -> None:
        """Take connections (again)."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Refuse connections and end those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """End every connection at once, without a farewell."""
        for link in list(self._links):
            link.cut()

    def hold(self, *ways: Way) -> None:
        """Let nothing through in these directions: connections are accepted, and hang."""
        for way in ways or ("up", "down"):
            self._flows[way].clear()

    def flow(self) -> None:
        """Let everything through again, what was held first."""
        for event in self._flows.values():
            event.set()

    def lose_commit(self, moment: Moment, *, number: int = 1) -> None:
        """Cut a connection to PostgreSQL right before its COMMIT is carried out, or right after.

        `number` counts the commits from now on. Either way the client does not know.
        """
        self._commit = (moment, number)
        self.commit_lost.clear()

    def lead_to(self, port: int) -> None:
        """Connect new connections to another server; those that there are stay."""
        self._target = port

    async def close(self) -> None:
        await self.refuse()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._flows["up"].wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            self._tasks.discard(task)
            return
        link = _Link(far_writer, writer)
        self._links.add(link)
        pumps = [
            asyncio.create_task(self._pump(link, "up", reader)),
            asyncio.create_task(self._pump(link, "down", far_reader)),
        ]
        try:
            # Whichever side ends, so does the other.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.cut()
        finally:
            for pump in pumps:
                pump.cancel()
            link.cut()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._links.discard(link)
            self._tasks.discard(task)

    async def _pump(self, link: _Link, way: Way, reader: asyncio.StreamReader) -> None:
        passed = 0
        while data := await reader.read(_CHUNK):
            self.held += not self._flows[way].is_set()
            await self._flows[way].wait()
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if self._is_cut(link, way, data):
                return
            if way == "down" and self.cut_after is not None:
                data = data[: max(0, self.cut_after - passed)]
                passed += len(data)
            link.writers[way].write(data)
            await link.writers[way].drain()
            if self.cut_after is not None and way == "down" and passed >= self.cut_after:
                return

    def _is_cut(self, link: _Link, way: Way, data: bytes) -> bool:
        if way == "down":
            if link.loses_answer:
                self.commit_lost.set()
            return link.loses_answer
        if self._commit is None or _COMMIT not in data:
            return False
        moment, number = self._commit
        self._commit = (moment, number - 1) if number > 1 else None
        if number > 1:
            return False
        link.loses_answer = moment == "after"
        if moment == "before":
            self.commit_lost.set()
        return moment == "before"


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the server of this URL, and the URL that leads through it."""
    parts = urlsplit(url)
    assert parts.port is not None
    proxy = Proxy(parts.port)
    await proxy.listen()
    try:
        yield proxy, url.replace(f":{parts.port}", f":{proxy.port}", 1)
    finally:
        await proxy.close()
