"""The end of a request: our items have ended, every track plays, and BRIDGE_CLOSE says how."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from services.bridge.catalog_server import BATCH, CatalogServer, RemoteTrack
from services.bridge.endings_store import EndingsStore, How, Progress
from services.bridge.playable import Playable, silent, why_not
from services.bridge.receipt import NoReceipt, Receipts
from services.bridge.requests_store import Taken
from services.bridge.server_http import CallRefused, Forbidden
from services.bridge.server_store import ServerStore
from shared.backoff import Backoff
from shared.crashpoints import reached
from shared.errors import Stale
from shared.metrics import SERVER_REQUESTS
from shared.states import ServerRequestState

log = structlog.get_logger()

Close = Literal["delete", "leave", "receipt"]

PROBLEM = "requests"
RECEIPT_PROBLEM = "receipt"
# How often it is asked whether a request plays: soon after its last file, and then ever less often.
_PAUSES = Backoff(first_s=0.5, longest_s=30)
_REFUSED_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the server says of a request; `tracks` is empty where it was not asked."""

    plays: bool
    tracks: tuple[RemoteTrack, ...] = ()
    why: str | None = None


class Endings:
    """Follows the requests that ingest has accepted, and ends them at the server."""

    def __init__(
        self,
        *,
        server: CatalogServer,
        requests: EndingsStore,
        store: ServerStore,
        playable: Playable,
        receipts: Receipts,
        close: Close,
        rng: random.Random,
    ) -> None:
        self._server = server
        self._requests = requests
        self._store = store
        self._playable = playable
        self._receipts = receipts
        self._close = close
        self._rng = rng
        # How often each was asked about in vain, since the start of this process.
        self._asked: dict[str, int] = {}

    async def run_once(self) -> int:
        """Take each request that is due one step further; returns how many came to an end.

        Raises:
            Unavailable: the server or PostgreSQL is away.
        """
        followed = await self._requests.followed()
        verdicts = await self._verdicts(followed)
        moved = 0
        for progress in followed:
            moved += await self._decide(progress, verdicts[progress.request.remote_id])
        for request in await self._requests.closing(ServerRequestState.RECEIPT):
            moved += await self._one(self._receipt, request)
        for request in await self._requests.closing(ServerRequestState.ENDING):
            moved += await self._one(self._delete, request)
        return moved

    # --- whether it plays

    async def _verdicts(self, followed: Sequence[Progress]) -> dict[str, Verdict]:
        if not followed:
            return {}
        if not self._playable.forbidden:
            try:
                return await self._said(followed)
            except Forbidden as forbidden:
                await self._playable.noted(forbidden)
        return {each.request.remote_id: await self._published(each) for each in followed}

    async def _said(self, followed: Sequence[Progress]) -> dict[str, Verdict]:
        albums = [e.request.content_id for e in followed if e.request.kind == "album"]
        tracks = [e.request.content_id for e in followed if e.request.kind == "track"]
        said: dict[str, Sequence[RemoteTrack | None] | None] = {}
        said |= await self._playable.albums(list(dict.fromkeys(albums)))
        wanted = list(dict.fromkeys(tracks))
        for start in range(0, len(wanted), BATCH):
            found = await self._playable.tracks(wanted[start : start + BATCH])
            said |= {id_: [track] for id_, track in found.items()}
        return {e.request.remote_id: _verdict(said.get(e.request.content_id)) for e in followed}

    async def _published(self, progress: Progress) -> Verdict:
        """Without the right to ask: it counts as playing when all of it is published."""
        request = progress.request
        if progress.failed:
            return Verdict(plays=False)
        # What was in place before has no item.
        tracks = {*progress.track_ids}
        if request.kind == "album":
            tracks.update(await self._requests.files_of(request.content_id))
        else:
            tracks.add(request.content_id)
        if not await self._requests.published(sorted(tracks)):
            return Verdict(plays=False, why="not all of its files are published")
        return Verdict(plays=True)

    # --- what follows from that

    async def _decide(self, progress: Progress, verdict: Verdict) -> int:
        request = progress.request
        if not verdict.plays:
            asked = self._asked.get(request.remote_id, 0)
            self._asked[request.remote_id] = asked + 1
            why = _reason(progress, verdict)
            await self._requests.later(request, why, in_s=_PAUSES.pause_s(asked, self._rng))
            if why != request.problem:
                log.info("server_request_waits", request_id=request.remote_id, why=why)
            return 0
        self._asked.pop(request.remote_id, None)
        return await self._one(lambda each: self._begin(each, verdict.tracks), request)

    async def _begin(self, request: Taken, tracks: Sequence[RemoteTrack]) -> bool:
        """Record how a request that plays is to be ended, and begin it."""
        match self._close:
            case "leave":
                return await self._ended(request, "left")
            case "delete":
                return await self._delete_next(request, None)
            case "receipt":
                if (why := self._receipts.refusal(request, tracks)) is not None:
                    return await self._fall_back(request, why)
                uris = {track.id: track.audio_uri for track in tracks}
                taken = await self._requests.close_by(
                    request, ServerRequestState.RECEIPT, audio_uris=uris
                )
                reached("server.receipt_intended")
                return await self._receipt(taken)

    async def _receipt(self, request: Taken) -> bool:
        try:
            if not await self._receipts.step(request):
                return False
        except NoReceipt as no:
            return await self._fall_back(request, str(no))
        await self._store.say(RECEIPT_PROBLEM, None)
        return await self._ended(request, "receipt")

    async def _fall_back(self, request: Taken, why: str) -> bool:
        if await self._store.say(RECEIPT_PROBLEM, why):
            log.warning("receipt_replaced_by_deletion", request_id=request.remote_id, why=why)
        return await self._delete_next(request, f"deleted without a receipt: {why}")

    async def _delete_next(self, request: Taken, problem: str | None) -> bool:
        taken = await self._requests.close_by(request, ServerRequestState.ENDING, problem=problem)
        reached("server.ending")
        return await self._delete(taken)

    async def _delete(self, request: Taken) -> bool:
        try:
            there = await self._server.delete_request(request.remote_id)
        except Forbidden as forbidden:
            return await self._not_deleted(request, forbidden.detail)
        except CallRefused as refused:
            return await self._not_deleted(request, str(refused))
        reached("server.deleted")
        await self._store.say(PROBLEM, None)
        if not there:
            log.info("server_request_was_gone", request_id=request.remote_id)
        return await self._ended(request, "deleted", request.problem)

    async def _not_deleted(self, request: Taken, why: str) -> bool:
        if await self._store.say(PROBLEM, why):
            log.error("server_request_not_deleted", request_id=request.remote_id, why=why)
        await self._requests.later(request, why, in_s=_REFUSED_S)
        return False

    async def _ended(self, request: Taken, how: How, problem: str | None = None) -> bool:
        took_s = await self._requests.end(request, how, problem=problem)
        reached("server.ended")
        SERVER_REQUESTS.labels(how).inc()
        log.info("server_request_ended", request_id=request.remote_id, how=how, took_s=took_s)
        return True

    @staticmethod
    async def _one(step: Callable[[Taken], Awaitable[bool]], request: Taken) -> int:
        """One step of one request; another bridge may have been faster."""
        try:
            return int(await step(request))
        except Stale as stale:
            log.info("server_request_moved", request_id=request.remote_id, why=str(stale))
            return 0


def _verdict(tracks: Sequence[RemoteTrack | None] | None) -> Verdict:
    if not tracks:
        return Verdict(plays=False, why="the catalog server has no tracks for it")
    without = silent(tracks)
    if not without:
        return Verdict(plays=True, tracks=tuple(track for track in tracks if track is not None))
    why = f"{len(without)} of {len(tracks)} tracks do not play: {why_not(without[0])}"
    return Verdict(plays=False, why=why)


def _reason(progress: Progress, verdict: Verdict) -> str | None:
    if progress.failed:
        failed, of = progress.failed, progress.failed + progress.completed
        return f"{failed} of {of} tracks failed: {progress.why or 'see the items'}"
    return verdict.why
