"""Requests over NATS: the same code as for those over HTTP."""

from __future__ import annotations

from services.ingest.limits import Caller
from services.ingest.orders import Order
from services.ingest.service import Requests
from services.ingest.withdrawals import Withdrawals
from shared.bus import subjects
from shared.errors import Conflict, InvalidRequest, LimitReached, Unknown
from shared.events import CancelRequest, RequestAlbum, RequestTrack, parse

DURABLE = "ingest"
FILTERS = [subjects.REQUEST_TRACK, subjects.REQUEST_ALBUM, subjects.REQUEST_CANCEL]


class RequestMessages:
    """Carries out the commands about requests."""

    def __init__(self, requests: Requests, withdrawals: Withdrawals) -> None:
        self.requests = requests
        self._withdrawals = withdrawals

    async def handle(self, subject: str, body: bytes) -> None:
        """Carry out one message; a refusal is published as `request.rejected`.

        Raises:
            InvalidRequest: the message cannot be understood.
            Unavailable: it cannot be decided now.
        """
        command = parse(subject, body)
        match command:
            case CancelRequest():
                await self._withdrawals.request(command.request_id, user_id=command.user_id)
            case RequestTrack() | RequestAlbum():
                await self._request(command)
            case _:
                raise InvalidRequest(f"ingest does not handle {subject}")

    async def _request(self, command: RequestTrack | RequestAlbum) -> None:
        order = _order(command)
        try:
            if isinstance(command, RequestTrack):
                await self.requests.track(order, carried=command.carried())
            else:
                await self.requests.album(order, carried=command.carried())
        except (Unknown, LimitReached, Conflict) as refusal:
            await self.requests.refuse(order, refusal)


def _order(command: RequestTrack | RequestAlbum) -> Order:
    track = isinstance(command, RequestTrack)
    return Order(
        # A request without a user is the catalog server's, and has no limits.
        caller=Caller(user_id=command.user_id, unlimited=command.user_id is None),
        kind="track" if track else "album",
        content_id=command.track_id if isinstance(command, RequestTrack) else command.album_id,
        source="nats",
        priority=command.priority,
        request_id=command.request_id,
    )
