"""What a request for audio does, over HTTP and over NATS alike.

One transaction decides it: the user's lock, the request, the items that are new and those that it
joins, the limits, and the events.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from services.ingest.availability import Availability, Available, Look
from services.ingest.limits import Limits
from services.ingest.orders import Accepted, Order, Wanted
from services.ingest.repetitions import earlier_request, waited_for
from services.ingest.store import ACTOR
from services.ingest.store import requests as store
from shared.announcer import Announcer
from shared.catalog.models import Album, Track
from shared.catalog.sqlite import Catalog
from shared.crashpoints import reached
from shared.db.adopt import adopt, busy
from shared.db.albums import remember_albums
from shared.db.enqueue import Enqueued, Request, enqueue, record_request
from shared.db.events import record_events
from shared.db.ledger import placed
from shared.db.pool import Connection, Database
from shared.db.track_columns import clipped
from shared.errors import DependencyDown, Refused, Stale, Unknown
from shared.events import (
    AlbumCompleted,
    Event,
    RequestAccepted,
    RequestRejected,
)
from shared.health import Health
from shared.metrics import REQUESTS
from shared.untrusted import content_id

log = structlog.get_logger()

T = TypeVar("T")

# Each turn means that a file was placed between the check and the decision.
_MAX_TURNS = 5


class Requests:
    """Accepts requests for tracks and albums."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        availability: Availability,
        limits: Limits,
        announcer: Announcer,
        health: Health,
        apart: bool,
    ) -> None:
        """`apart`: each track of an album gets a ticket of its own, and so a turn."""
        self._database = database
        self._catalog = catalog
        self._apart = apart
        self.availability = availability
        self._limits = limits
        self._announcer = announcer
        self._health = health

    async def track(self, order: Order, *, carried: Track | None = None) -> Accepted:
        """Request one track; `carried` are its catalog data, where the message has them.

        Raises:
            InvalidRequest, Unknown, LimitReached, Conflict: it is refused.
            Unavailable: it cannot be decided now.
        """
        content_id(order.content_id, what="track id")
        REQUESTS.labels(order.source, "track").inc()
        track = carried or await self._looked_up(self._catalog.track(order.content_id))
        if track is None:
            raise Unknown(f"the catalog has no track {order.content_id}")
        album = None
        if carried is None and track.album_id is not None:
            album = await self._looked_up(self._catalog.album(track.album_id))
        artist = ", ".join(track.artists) or None
        return await self._accept(
            order, Wanted(name=track.name, artist=artist, tracks=[track], album=album)
        )

    async def album(self, order: Order, *, carried: Album | None = None) -> Accepted:
        """Request every track of an album; counts as one request.

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
        unique = list({track.id: track for track in album.tracks}.values())
        return await self._accept(
            order, Wanted(name=album.name, artist=album.artist, tracks=unique, album=album)
        )

    async def _looked_up(self, answer: Awaitable[T]) -> T:
        found = await answer
        self._health.up("catalog")
        return found

    async def refuse(self, order: Order, refusal: Refused) -> None:
        """Publish that this request was refused, and why."""
        rejected = RequestRejected(
            request_id=order.request_id,
            user_id=order.caller.user_id,
            content=order.kind,
            content_id=order.content_id,
            problem=type(refusal).__name__,
            reason=str(refusal),
        )
        async with self._database.transaction() as connection:
            await record_events(connection, [rejected], actor=ACTOR)
        await self._announcer.announce()

    async def _accept(self, order: Order, wanted: Wanted) -> Accepted:
        # Delivered again: it was answered, and is not answered otherwise now.
        if order.source == "nats" and (known := await self._known(order.request_id)):
            return known
        for _ in range(_MAX_TURNS):
            look = await self.availability.look(wanted.tracks)
            await self._check_ahead(order, look)
            available = await self.availability.settle(look, visitor=order.visitor)
            self._health.up("media")
            reached("ingest.looked")
            if order.kind == "track":
                available.require_no_broken(order.content_id)
            try:
                accepted = await self._decide(order, wanted, available)
            except Stale as stale:
                log.info("request_checked_again", request_id=order.request_id, why=str(stale))
                continue
            break
        else:
            raise DependencyDown("postgres", "the queue changes too fast to join it")
        if accepted.queued:
            await self._announcer.announce("ticket")
        elif not accepted.repeated:
            await self._announcer.announce()
        return accepted

    async def _known(self, request_id: str) -> Accepted | None:
        async with self._database.connection() as connection:
            if not await store.is_known(connection, request_id):
                return None
            joined = await store.items_of(connection, request_id)
        return Accepted(request_id=request_id, joined=joined, repeated=True)

    async def _check_ahead(self, order: Order, look: Look) -> None:
        """Refuse a request over a limit before its files are decoded.

        What a user waits for already, and what is recorded, count for no limit.
        """
        if order.caller.unlimited:
            return
        ids = [track.id for track in look.tracks]
        absent = {track.id for track in look.absent}
        to_decode = {track.id for track in look.to_decode}
        async with self._database.connection() as connection:
            own = await waited_for(connection, order.caller.user_id, ids)
            if not (absent | to_decode) - own.keys():
                return
            await self._limits.check_ahead(
                connection,
                order.caller,
                new=len(absent - own.keys()),
                own=len(own),
                album=order.kind == "album",
            )

    async def _decide(self, order: Order, wanted: Wanted, available: Available) -> Accepted:
        async with self._database.transaction() as connection:
            await self._limits.lock(connection, order.caller)
            accepted = await self._write(connection, order, wanted, available)
            reached("ingest.decided")
        reached("ingest.committed")
        if not accepted.repeated:
            log.info(
                "request_accepted",
                request_id=order.request_id,
                kind=order.kind,
                content_id=order.content_id,
                queued=len(accepted.queued),
                joined=len(accepted.joined),
                available=len(accepted.available),
                broken=len(accepted.broken),
            )
        return accepted

    async def _write(
        self, connection: Connection, order: Order, wanted: Wanted, available: Available
    ) -> Accepted:
        request = replace(_request(order, wanted), apart=self._apart)
        found = available.found.keys() - await busy(connection, available.found)
        there = available.recorded.keys() | found | available.broken.keys()
        missing = [track for track in wanted.tracks if track.id not in there]
        if not found and (repeated := await _repeated(connection, order, available, missing)):
            return repeated
        # Adopted files get an item, and are counted by it when the album is complete.
        recorded = len(available.recorded)
        if not await record_request(
            connection, request, settled=not missing, already_available=recorded
        ):
            joined = await store.items_of(connection, request.id)
            return Accepted(request_id=request.id, joined=joined, repeated=True)
        reached("ingest.requested")
        enqueued = await _enqueue(connection, request, missing, wanted.album)
        await _check_unchanged(connection, enqueued, available)
        adopted = await _adopt(
            connection, request, [track for track in wanted.tracks if track.id in found], available
        )
        if enqueued.charged:
            items = len(enqueued.queued) + len(enqueued.joined)
            await self._limits.check_request(
                connection, order.caller, album_of=items if order.kind == "album" else None
            )
        events: list[Event] = [
            _accepted(
                order,
                request,
                enqueued,
                available=recorded + len(adopted),
                broken=tuple(available.broken),
            )
        ]
        if order.kind == "album" and not missing:
            events.append(_completed(order, request, recorded, len(adopted)))
        await record_events(connection, events, actor=ACTOR)
        return Accepted(
            request_id=request.id,
            queued=enqueued.queued,
            joined=enqueued.joined,
            available=dict.fromkeys(available.recorded) | adopted,
            broken=list(available.broken),
        )


def _request(order: Order, wanted: Wanted) -> Request:
    return Request(
        id=order.request_id,
        user_id=order.caller.user_id,
        kind=order.kind,
        content_id=order.content_id,
        content_name=clipped(wanted.name),
        artist_name=clipped(wanted.artist),
        priority=order.priority,
        source=order.source,
    )


async def _repeated(
    connection: Connection, order: Order, available: Available, missing: Sequence[Track]
) -> Accepted | None:
    """The answer to a wish over HTTP that the user has made before; None: it is new."""
    if order.visitor is None:
        return None
    earlier = await earlier_request(
        connection,
        order.visitor,
        kind=order.kind,
        content_id=order.content_id,
        priority=order.priority,
        missing=[track.id for track in missing],
    )
    if earlier is None:
        return None
    request_id, items = earlier
    return Accepted(
        request_id=request_id,
        joined=items,
        available=dict.fromkeys(available.recorded),
        broken=list(available.broken),
        repeated=True,
    )


async def _enqueue(
    connection: Connection, request: Request, missing: Sequence[Track], album: Album | None
) -> Enqueued:
    """Queue what has no file; before any file is adopted, so that no album ends by that alone."""
    enqueued = await enqueue(connection, request, missing, actor=ACTOR)
    reached("ingest.queued")
    if enqueued.queued and album is not None:
        await remember_albums(connection, [album])
    return enqueued


async def _check_unchanged(
    connection: Connection, enqueued: Enqueued, available: Available
) -> None:
    """Return if no file was placed, since the check, for a track that is queued now.

    An item that ended in between leaves no active one to join, only its row in the ledger.

    Raises:
        Stale: one was; check again.
    """
    for id_, file in (await placed(connection, list(enqueued.queued))).items():
        if file != available.ledger.get(id_):
            raise Stale(f"{id_} was placed at this very moment")


async def _adopt(
    connection: Connection, request: Request, tracks: Sequence[Track], available: Available
) -> dict[str, str | None]:
    """Adopt the files of these tracks; item ids by track id.

    Raises:
        Stale: the queue or the ledger has one of them since the check; check again.
    """
    return {
        track.id: await adopt(
            connection,
            request,
            track,
            available.found[track.id],
            known=available.ledger.get(track.id),
            actor=ACTOR,
        )
        for track in sorted(tracks, key=lambda each: each.id)
    }


def _accepted(
    order: Order,
    request: Request,
    enqueued: Enqueued,
    *,
    available: int,
    broken: tuple[str, ...],
) -> RequestAccepted:
    return RequestAccepted(
        request_id=request.id,
        user_id=request.user_id,
        content=order.kind,
        content_id=request.content_id,
        content_name=request.content_name,
        artist_name=request.artist_name,
        queued=len(enqueued.queued),
        already_queued=len(enqueued.joined),
        already_available=available,
        item_ids=(*enqueued.queued.values(), *enqueued.joined.values()),
        broken=broken,
    )


def _completed(order: Order, request: Request, recorded: int, adopted: int) -> AlbumCompleted:
    """Of an album whose files are all in place: no item's end will publish it."""
    return AlbumCompleted(
        album_id=order.content_id,
        album_name=request.content_name,
        artist_name=request.artist_name,
        request_ids=(request.id,),
        user_ids=() if request.user_id is None else (request.user_id,),
        completed=adopted,
        failed=0,
        already_available=recorded,
    )
