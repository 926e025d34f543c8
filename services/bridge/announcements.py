"""The announcements: each request is published on NATS as a catalog server would do it by itself.

The message has the server's id as its request id, so that ingest takes it once, however often it
comes. It is published again until ingest's answer is in PostgreSQL: a message may be lost.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import structlog

from services.bridge.requests_store import RequestsStore, Taken
from shared.bus import subjects
from shared.bus.nats import Bus, NotAccepted, Outgoing
from shared.crashpoints import reached
from shared.errors import InvalidRequest, Unavailable
from shared.metrics import SERVER_REQUESTS
from shared.untrusted import content_id, token, user

log = structlog.get_logger()

_SUBJECTS = {"track": subjects.REQUEST_TRACK, "album": subjects.REQUEST_ALBUM}


class Announcements:
    """Publishes requests and withdrawals, and records what ingest made of them."""

    def __init__(self, *, store: RequestsStore, bus: Bus) -> None:
        self._store = store
        self._bus = bus

    async def run_once(self) -> int:
        """Publish what is due; returns how many requests ingest has decided about.

        Raises:
            Unavailable: PostgreSQL or NATS is away; what was not published is due again later.
        """
        decided = await self._decided()
        due = await self._store.to_announce()
        messages = [message for request in due if (message := await self._message(request))]
        messages += [_cancellation(request) for request in await self._store.to_cancel()]
        if messages:
            reached("server.announcing")
            try:
                await self._publish(messages)
            except Unavailable:
                await self._store.not_announced([message.id for message in messages])
                raise
            reached("server.announced")
        return decided

    async def _decided(self) -> int:
        accepted, rejected = await self._store.decided()
        for request in accepted:
            SERVER_REQUESTS.labels("accepted").inc()
            log.info("server_request_followed", request_id=request.remote_id)
        for row in rejected:
            SERVER_REQUESTS.labels("rejected").inc()
            log.warning("server_request_rejected", request_id=row["remote_id"], why=row["problem"])
        if accepted or rejected:
            reached("server.decided")
        return len(accepted) + len(rejected)

    async def _message(self, request: Taken) -> Outgoing | None:
        try:
            return _announcement(request)
        except InvalidRequest as error:
            # Ingest would bury it without an answer.
            await self._store.refuse(request, str(error))
            SERVER_REQUESTS.labels("rejected").inc()
            log.warning("server_request_rejected", request_id=request.remote_id, why=str(error))
            return None

    async def _publish(self, messages: Sequence[Outgoing]) -> None:
        try:
            await self._bus.publish(messages)
        except NotAccepted as refused:
            log.warning("announcements_not_accepted", reasons=refused.reasons)


def _announcement(request: Taken) -> Outgoing:
    token(request.request_id, what="request id")
    if request.user_id is not None:
        user(request.user_id, what="user id")
    content_id(request.content_id, what=f"{request.kind} id")
    body = {
        "v": 1,
        "request_id": request.request_id,
        "user_id": request.user_id,
        "priority": request.priority,
        f"{request.kind}_id": request.content_id,
    }
    return _outgoing(_SUBJECTS[request.kind], request, body)


def _cancellation(request: Taken) -> Outgoing:
    body = {"v": 1, "request_id": request.request_id, "user_id": request.user_id}
    return _outgoing(subjects.REQUEST_CANCEL, request, body)


def _outgoing(subject: str, request: Taken, body: object) -> Outgoing:
    return Outgoing(subject=subject, body=json.dumps(body).encode(), id=request.request_id)
