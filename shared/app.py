"""The parts that the services of one process share."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from shared.announcer import Announcer
from shared.backoff import RetryPolicy
from shared.bus.nats import Bus
from shared.bus.relay import Relay
from shared.clock import Clock, SystemClock
from shared.db.pool import Database
from shared.errors import Dependency
from shared.health import Health
from shared.settings import Settings


@dataclass(frozen=True, kw_only=True)
class App:
    """The parts that the services of one process share; made once and passed in."""

    settings: Settings
    database: Database
    bus: Bus
    relay: Relay
    announcer: Announcer
    health: Health
    clock: Clock
    rng: random.Random
    retries: RetryPolicy
    # The name of this process in leases.
    worker: str
    closers: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    # Dependencies that have not been there since the start; until then the process is not ready.
    awaited: set[Dependency] = field(default_factory=set)
    # Further fields of /readyz.
    said: dict[str, str] = field(default_factory=dict)


def make_app(settings: Settings, *, name: str, clock: Clock | None = None) -> App:
    """Build the shared parts; opens no connection."""
    clock = clock or SystemClock()
    rng = random.Random()  # noqa: S311 (jitter, not secrets)
    health = Health(clock, rng)
    database = Database(settings.database_url.get_secret_value())
    bus = Bus(
        settings.nats_url.get_secret_value(),
        name=name,
        health=health,
        ca_file=settings.nats_ca_file,
    )
    relay = Relay(database, bus)
    return App(
        settings=settings,
        database=database,
        bus=bus,
        relay=relay,
        announcer=Announcer(bus, relay.wake),
        health=health,
        clock=clock,
        rng=rng,
        retries=RetryPolicy(
            max_retries=settings.max_retries,
            initial_s=settings.retry_initial_s,
            multiplier=settings.retry_multiplier,
            max_s=settings.retry_max_s,
            rng=rng,
        ),
        worker=f"{name}@{socket.gethostname()}:{os.getpid()}",
    )
