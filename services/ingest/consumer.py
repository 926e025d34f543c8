"""Requests over NATS: the same code as behind HTTP."""

from __future__ import annotations

from services.ingest.limits import Caller
from services.ingest.messages import AlbumRequest, CancelRequest, TrackRequest, parse
from services.ingest.service import Order, Requests
from services.ingest.withdrawals import Withdrawals
from shared.bus import subjects
from shared.errors import LimitReached, Unknown

DURABLE = "ingest"
FILTERS = [subjects.REQUEST_TRACK, subjects.REQUEST_ALBUM, subjects.REQUEST_CANCEL]


class RequestMessages:
    """Understands request messages and hands them on."""

    def __init__(self, requests: Requests, withdrawals: Withdrawals) -> None:
        self._requests = requests
        self._withdrawals = withdrawals

    async def handle(self, subject: str, body: bytes) -> None:
        """Carry out one message; a refusal is told as `request.rejected`.

        Raises:
            InvalidRequest: the message cannot be understood.
            Unavailable: it cannot be decided now.
        """
        message = parse(subject, body)
        if isinstance(message, CancelRequest):
            await self._withdrawals.request(message.request_id, user_id=message.user_id)
            return
        order = _order(message)
        try:
            if isinstance(message, TrackRequest):
                await self._requests.track(order, carried=message.carried())
            else:
                await self._requests.album(order, carried=message.carried())
        except (Unknown, LimitReached) as refusal:
            await self._requests.refuse(order, refusal)


def _order(message: TrackRequest | AlbumRequest) -> Order:
    track = isinstance(message, TrackRequest)
    return Order(
        # A request without a user is the catalog server's own, and has no limits.
        caller=Caller(user_id=message.user_id, unlimited=message.user_id is None),
        kind="track" if track else "album",
        content_id=message.track_id if isinstance(message, TrackRequest) else message.album_id,
        source="nats",
        priority=message.priority,
        request_id=message.request_id,
    )
