"""The places where finished files lie, and whether they are the right ones and work.

A mount may be there and be another folder than Torrentino's: Compose creates a missing one, empty.
Its files prove that it is the right one. So a download whose folder is missing or cannot be read
is compared with others that should be there: if one of them can be read, the place is right, and
the one download is at fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog

from services.fetcher_writer.delivery.base import Delivery, DeliveryName
from services.fetcher_writer.delivery.collector import Collector
from services.fetcher_writer.store import Store
from services.fetcher_writer.work import Other
from shared.errors import AttemptFailed, Unavailable
from shared.health import Health

log = structlog.get_logger()

# Others that are asked at most, each with a listing.
_MOST_ASKED = 20
# So many that fail alike, and none that can be read, are the place's fault.
_MANY = 3
# How long a file that was read proves that the place works.
_PROOF_S = 60.0


class Places:
    """Knows of each delivery whether it is Torrentino's; `now_s` is monotonic."""

    def __init__(
        self,
        store: Store,
        collector: Collector,
        health: Health,
        *,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self.collector = collector
        self._health = health
        self._now_s = now_s
        # When a file of each place was read last, and what the place was then.
        self._proofs: dict[DeliveryName, tuple[float, str]] = {}
        self._noted: set[tuple[DeliveryName, str]] = set()

    async def proved(self, name: DeliveryName) -> None:
        """A file of this place was read now.

        Raises:
            Unavailable: the place or PostgreSQL is away by now.
        """
        self._health.up("incoming")
        await self._note(name, await self.collector.deliveries[name].identity())

    async def check(self) -> None:
        """Return when every place works, as far as the downloads that wait can show it.

        Raises:
            DependencyDown: a place does not answer, or reads nothing.
            Misconfigured: a place is another one than Torrentino's.
        """
        for name in self.collector.deliveries:
            await self._require(name, None)

    async def require(self, name: DeliveryName, ticket_id: str, path: str) -> None:
        """Return when this place works, so that the download at `path` is at fault.

        Raises:
            DependencyDown, Misconfigured: as `check`.
        """
        await self._require(name, ticket_id, path)

    async def _require(
        self, name: DeliveryName, ticket_id: str | None, path: str | None = None
    ) -> None:
        delivery = self.collector.deliveries[name]
        await delivery.check()
        identity = await delivery.identity()
        if self._is_proved(name, identity):
            return
        others = await self._store.others(name, ticket_id, _MOST_ASKED)
        problems: list[Unavailable] = []
        for other in others:
            try:
                if await _proves(delivery, other):
                    await self._note(name, identity)
                    return
            except Unavailable as unavailable:
                problems.append(unavailable)
        there = await self._there(
            delivery, [*(each.path for each in others), *([path] if path else [])]
        )
        if there and not any(there.values()):
            if len(others) >= _MANY or not await self._store.is_known(name, identity):
                raise delivery.another(next(iter(there)))
        elif len(problems) >= _MANY and len({_sign(each) for each in problems}) == 1:
            raise problems[0]

    def _is_proved(self, name: DeliveryName, identity: str) -> bool:
        at_s, proved = self._proofs.get(name, (0.0, None))
        return proved == identity and self._now_s() - at_s < _PROOF_S

    async def _there(self, delivery: Delivery, paths: Sequence[str]) -> dict[str, bool]:
        """Which of the paths is there, whatever it has; without those of another configuration."""
        found = {}
        for path in paths:
            try:
                found[path] = await delivery.exists(path)
            except Unavailable:
                found[path] = True  # what refuses to be read is there
            except AttemptFailed:
                continue
        return found

    async def _note(self, name: DeliveryName, identity: str) -> None:
        self._proofs[name] = (self._now_s(), identity)
        if (name, identity) not in self._noted:
            await self._store.know(name, identity)
            self._noted.add((name, identity))
            log.info("place_known", delivery=name, identity=identity)


def _sign(problem: Unavailable) -> tuple[type[Unavailable], int | None]:
    """What problems of one cause have in common."""
    cause = problem.__cause__
    return type(problem), cause.errno if isinstance(cause, OSError) else None


async def _proves(delivery: Delivery, other: Other) -> bool:
    try:
        return await delivery.proves(await delivery.locate(other.path, other.size_bytes))
    except AttemptFailed:
        return False
