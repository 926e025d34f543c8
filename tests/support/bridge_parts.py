"""The parts of a bridge, one step at a time, at a stand-in of the catalog server."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from services.bridge.availability import Availability
from services.bridge.catalog_server import CatalogServer
from services.bridge.endings import Close, Endings
from services.bridge.endings_store import EndingsStore
from services.bridge.intake import Intake
from services.bridge.playable import Playable
from services.bridge.receipt import Receipts
from services.bridge.requests_store import RequestsStore
from services.bridge.server_http import Account, Session
from services.bridge.server_store import ServerStore
from shared.clock import SystemClock
from shared.db.pool import Database
from shared.health import Health
from tests.support.bridged import Bridged
from tests.support.music import album_id
from tests.support.waits import eventually
from tests.support.world import Row


class MovedClock(SystemClock):
    """A clock that a test moves on; it also passes by itself."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


@dataclass(kw_only=True)
class Parts:
    """What `services.bridge.server` wires, for a test to step through."""

    bridge: Bridged
    database: Database
    session: Session
    clock: MovedClock
    slept: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = CatalogServer(self.session)
        self.requests = RequestsStore(self.database)
        self.store = ServerStore(self.database)
        self.playable = Playable(server=self.server, store=self.store, clock=self.clock)
        self.availability = Availability(server=self.server, store=self.store, clock=self.clock)

    def intake(self, *, page: int) -> Intake:
        """An intake with small pages."""
        return Intake(server=self.server, store=self.requests, wake=lambda: None, page=page)

    def endings(self, close: Close, *, availability: bool = True) -> Endings:
        """What ends requests in this way."""
        receipts = Receipts(
            server=self.server,
            requests=EndingsStore(self.database),
            store=self.store,
            availability=self.availability if availability else None,
        )
        return Endings(
            server=self.server,
            requests=EndingsStore(self.database),
            store=self.store,
            playable=self.playable,
            receipts=receipts,
            close=close,
            rng=random.Random(1),
        )

    async def follow(self, number: int, kind: str = "ALBUM", content_id: str = "") -> str:
        """A request of the server that ingest has accepted, with nothing left to do for us."""
        asked = content_id or album_id(number)
        remote_id = self.bridge.server.ask(self.bridge.listener, kind, asked)
        await self.intake(page=500).run_once()
        await self.bridge.world.execute(
            "UPDATE bridge_requests SET state = 'followed' WHERE remote_id = $1", remote_id
        )
        return remote_id

    async def until_ended(self, endings: Endings, remote_id: str) -> Row:
        """Step until a request is ended; its row."""

        async def step() -> Row | None:
            await endings.run_once()
            await self.availability.run_once()
            return await self.bridge.request(remote_id)

        row = await eventually(
            step, lambda row: row is not None and row["state"] == "ended", within_s=20
        )
        assert row is not None
        return row


@asynccontextmanager
async def parts(bridge: Bridged) -> AsyncIterator[Parts]:
    """The parts, with a session as `bridge` that waits for nothing."""
    database, clock = Database(bridge.world.database_url), MovedClock()
    slept: list[float] = []
    made: list[Parts] = []

    async def account() -> Account:
        device = await made[0].store.device_uuid(url=bridge.server.url, user="bridge")
        return Account(user="bridge", password="pw-bridge", device_uuid=device)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    session = Session(
        base_url=bridge.server.url,
        account=account,
        health=Health(clock),
        clock=clock,
        sleep=sleep,
    )
    made.append(Parts(bridge=bridge, database=database, session=session, clock=clock, slept=slept))
    try:
        yield made[0]
    finally:
        await session.close()
        await database.close()
