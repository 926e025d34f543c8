"""What a request for audio does, whichever door it came through.

One transaction decides everything: the user's lock, the request, the items that are new and the
ones that are joined, the limits, and the events that tell of it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import structlog

from services.ingest import limits
from services.ingest.availability import Availability, Available
from services.ingest.limits import Caller
from shared.bus.nats import Bus
from shared.catalog.models import Album, Track
from shared.catalog.sqlite import Catalog
from shared.crashpoints import reached
from shared.db.adopt import adopt, busy
from shared.db.albums import remember_albums
from shared.db.enqueue import Enqueued, Request, Source, enqueue, record_request
from shared.db.events import record_event
from shared.db.ledger import placed
from shared.db.pool import Connection, Database
from shared.db.track_columns import clipped
from shared.errors import DependencyDown, LimitReached, Refused, Stale, Unknown
from shared.health import Health
from shared.metrics import REQUESTS
from shared.untrusted import content_id

log = structlog.get_logger()

T = TypeVar("T")

ACTOR = "ingest"
# Each turn means that a file was placed while we decided; more than this is no accident.
_TURNS = 5


@dataclass(frozen=True, kw_only=True)
class Order:
    """A wish before it is understood: who, what, how urgent, by which door."""

    caller: Caller
    kind: Literal["track", "album"]
    content_id: str
    source: Source
    priority: int = 2
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """What became of it: item ids by track id."""

    request_id: str
    queued: dict[str, str] = field(default_factory=dict)
    joined: dict[str, str] = field(default_factory=dict)
    # Available tracks; the id is None for a file that no item of ours brought.
    available: dict[str, str | None] = field(default_factory=dict)
    # The same request came before; nothing was done now.
    repeated: bool = False


class Requests:
    """Accepts requests for tracks and albums."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        availability: Availability,
        bus: Bus,
        relay_wake: asyncio.Event,
        policy: limits.Policy,
        health: Health,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._availability = availability
        self._bus = bus
        self._relay_wake = relay_wake
        self._policy = policy
        self._health = health

    async def track(self, order: Order, *, carried: Track | None = None) -> Accepted:
        """Ask for one track.

        Raises:
            InvalidRequest, Unknown, LimitReached: it is refused.
            Unavailable: it cannot be decided now.
        """
        content_id(order.content_id, what="track id")
        REQUESTS.labels(order.source, "track").inc()
        track = carried or await self._looked_up(self._catalog.track(order.content_id))
        if track is None:
            raise Unknown(f"the catalog has no track {order.content_id}")
        album = None
        if carried is None and track.album_id is not None:
            # Torrents are albums: which of its files is this one, its other tracks tell.
            album = await self._looked_up(self._catalog.album(track.album_id))
        names = (track.name, ", ".join(track.artists) or None)
        return await self._accept(order, [track], names=names, album=album)

    async def album(self, order: Order, *, carried: Album | None = None) -> Accepted:
        """Ask for every track of an album; counts as one request.

        Raises:
            InvalidRequest, Unknown, LimitReached: it is refused.
            Unavailable: it cannot be decided now.
        """
        content_id(order.content_id, what="album id")
        REQUESTS.labels(order.source, "album").inc()
        album = carried or await self._looked_up(self._catalog.album(order.content_id))
        if album is None:
            raise Unknown(f"the catalog has no album {order.content_id}")
        if not album.tracks:
            raise Unknown(f"album {order.content_id} has no tracks in the catalog")
        return await self._accept(
            order, album.tracks, names=(album.name, album.artist), album=album
        )

    async def _looked_up(self, answer: Awaitable[T]) -> T:
        found = await answer
        self._health.up("catalog")
        return found

    async def refuse(self, order: Order, refusal: Refused) -> None:
        """Tell whoever listens that this request was turned down, and why."""
        async with self._database.transaction() as connection:
            await record_event(
                connection,
                "request.rejected",
                {
                    "request_id": order.request_id,
                    "user_id": order.caller.user_id,
                    f"{order.kind}_id": order.content_id,
                    "problem": type(refusal).__name__,
                    "reason": str(refusal),
                },
                actor=ACTOR,
            )
        self._relay_wake.set()

    async def _accept(
        self,
        order: Order,
        tracks: Sequence[Track],
        *,
        names: tuple[str, str | None],
        album: Album | None,
    ) -> Accepted:
        unique = list({track.id: track for track in tracks}.values())
        request = Request(
            id=order.request_id,
            user_id=order.caller.user_id,
            kind=order.kind,
            content_id=order.content_id,
            content_name=clipped(names[0]),
            artist_name=clipped(names[1]),
            priority=order.priority,
            source=order.source,
        )
        for _ in range(_TURNS):
            available = await self._availability.check(unique)
            self._health.up("media")
            reached("ingest.looked")
            try:
                accepted = await self._decide(order.caller, request, unique, available, album=album)
            except Stale as stale:
                log.info("request_looks_again", request_id=request.id, why=str(stale))
                continue
            break
        else:
            raise DependencyDown("postgres", "the queue changes too fast to join it")
        if not accepted.repeated:
            self._relay_wake.set()
            if accepted.queued:
                await self._bus.wake("ticket")
        return accepted

    async def _decide(
        self,
        caller: Caller,
        request: Request,
        tracks: Sequence[Track],
        available: Available,
        *,
        album: Album | None,
    ) -> Accepted:
        async with self._database.transaction() as connection:
            await limits.lock(connection, caller)
            found = available.found.keys() - await busy(connection, available.found)
            wanted = [t for t in tracks if t.id not in available.recorded and t.id not in found]
            # Adopted files get an item, and are counted by it when the album is complete.
            recorded = len(available.recorded)
            if not await record_request(
                connection, request, settled=not wanted, already_available=recorded
            ):
                return await self._repeated(connection, request)
            reached("ingest.requested")
            # Before any item is completed, so that no album ends with its first tracks.
            enqueued = await enqueue(connection, request, wanted, actor=ACTOR)
            reached("ingest.queued")
            if enqueued.queued and album is not None:
                await remember_albums(connection, [album])
            await _check_unchanged(connection, enqueued, available)
            adopted = {
                id_: await adopt(
                    connection,
                    request,
                    track,
                    available.found[id_],
                    known=available.ledger.get(id_),
                    actor=ACTOR,
                )
                for id_, track in sorted({t.id: t for t in tracks if t.id in found}.items())
            }
            if enqueued.charged and not caller.unlimited:
                await self._check_limits(connection, caller)
            await self._tell(connection, request, enqueued, recorded + len(adopted))
            if request.kind == "album" and not wanted:
                await self._tell_complete(connection, request, recorded, len(adopted))
            reached("ingest.decided")
        reached("ingest.committed")
        log.info(
            "request_accepted",
            request_id=request.id,
            kind=request.kind,
            content_id=request.content_id,
            queued=len(enqueued.queued),
            joined=len(enqueued.joined),
            available=len(tracks) - len(wanted),
        )
        return Accepted(
            request_id=request.id,
            queued=enqueued.queued,
            joined=enqueued.joined,
            available=dict.fromkeys(available.recorded) | adopted,
        )

    async def _check_limits(self, connection: Connection, caller: Caller) -> None:
        usage = await limits.usage(connection, caller)
        # Counted with this request in it; the exception takes it out again.
        if usage.requests_today > self._policy.max_per_day:
            raise LimitReached(
                f"{self._policy.max_per_day} requests a day are used up;"
                " ask again after midnight UTC"
            )
        if usage.in_queue > self._policy.max_queue:
            raise LimitReached(
                f"this would make {usage.in_queue} items in your queue,"
                f" {self._policy.max_queue} are allowed; wait for some to finish, or ask for fewer"
            )

    async def _tell(
        self, connection: Connection, request: Request, enqueued: Enqueued, available: int
    ) -> None:
        await record_event(
            connection,
            "request.accepted",
            {
                "request_id": request.id,
                "user_id": request.user_id,
                f"{request.kind}_id": request.content_id,
                "content_name": request.content_name,
                "artist_name": request.artist_name,
                "queued": len(enqueued.queued),
                "already_queued": len(enqueued.joined),
                "already_available": available,
                "item_ids": [*enqueued.queued.values(), *enqueued.joined.values()],
            },
            actor=ACTOR,
            request_id=request.id,
        )

    async def _tell_complete(
        self, connection: Connection, request: Request, recorded: int, adopted: int
    ) -> None:
        """Who asked for an album that is there already hears of its end like everybody else."""
        await record_event(
            connection,
            "album.completed",
            {
                "album_id": request.content_id,
                "album_name": request.content_name,
                "artist_name": request.artist_name,
                "request_ids": [request.id],
                "user_ids": [request.user_id] if request.user_id is not None else [],
                "completed": adopted,
                "failed": 0,
                "already_available": recorded,
            },
            actor=ACTOR,
            request_id=request.id,
        )

    async def _repeated(self, connection: Connection, request: Request) -> Accepted:
        rows = await connection.fetch(_ITEMS_OF_REQUEST, request.id)
        return Accepted(
            request_id=request.id,
            joined={row["track_id"]: row["id"] for row in rows},
            repeated=True,
        )


async def _check_unchanged(
    connection: Connection, enqueued: Enqueued, available: Available
) -> None:
    """See that what was queued anew has not been placed since we looked.

    An item that ended in between leaves no active one to join, only its row in the ledger.

    Raises:
        Stale: some of it has; look again.
    """
    for id_, file in (await placed(connection, list(enqueued.queued))).items():
        if file != available.ledger.get(id_):
            raise Stale(f"{id_} was placed at this very moment")


_ITEMS_OF_REQUEST = """
SELECT q.track_id, q.id FROM item_requesters r JOIN queue_items q ON q.id = r.item_id
 WHERE r.request_id = $1 ORDER BY q.seq
"""
