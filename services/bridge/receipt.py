"""A receipt: the server's own ingestion completes a request, with the bell and the event.

A short silent file is uploaded for an album request. It matches no track, so the server asks a
person; the answer "continue" completes the request without a file or a uri being touched. The
server does not check that answer, and offers it to nobody: docs/bridge.md has the risk. So each
step is guarded, and whatever is not as expected ends in a deletion of the request instead.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence

import structlog

from services.bridge.availability import Availability
from services.bridge.catalog_server import PAGE, CatalogServer, IngestionJob, RemoteTrack
from services.bridge.endings_store import EndingsStore
from services.bridge.requests_store import Taken
from services.bridge.server_http import Forbidden, NotEnabled
from services.bridge.server_store import ServerStore
from shared.crashpoints import reached
from shared.errors import DownloadsError

log = structlog.get_logger()

PROBLEM = "receipt"
LENGTH_MS = 100
# The server takes a file for a track whose length it has within 6 s.
_FAR_MS = 7_000
_LOOK_S = 0.5
# After an upload whose answer was lost, its job may still appear.
UPLOAD_S = 20.0
_MOST_UPLOADS = 3
_JOB_WAIT_S = 600.0
_REVIEW_WAIT_S = 120.0
_MOST_PAGES = 200
_CONTINUE = "continue"


class NoReceipt(DownloadsError):
    """A receipt cannot complete this request; the text says why."""


class Receipts:
    """Completes requests by receipts, one step at a time."""

    def __init__(
        self,
        *,
        server: CatalogServer,
        requests: EndingsStore,
        store: ServerStore,
        availability: Availability | None,
    ) -> None:
        self._server = server
        self._requests = requests
        self._store = store
        self._availability = availability

    @staticmethod
    def refusal(request: Taken, tracks: Sequence[RemoteTrack]) -> str | None:
        """Why a receipt must not be tried for this request; None where it may."""
        if request.kind != "album":
            return "a receipt completes requests of albums only"
        if not tracks:
            return "the catalog server does not say which tracks the album has"
        if len(tracks) == 1 and abs(tracks[0].duration_ms - LENGTH_MS) < _FAR_MS:
            return "the album is one track as short as a receipt, and would be replaced by it"
        return None

    async def step(self, request: Taken) -> bool:
        """Take the next step for a request; True when it is completed there.

        Raises:
            NoReceipt: it has to be deleted instead.
            Unavailable: the server or PostgreSQL is away.
        """
        try:
            return await self._step(request)
        except (Forbidden, NotEnabled) as refused:
            raise NoReceipt(refused.detail) from refused

    async def _step(self, request: Taken) -> bool:
        job_id = request.receipt_job
        if job_id is None:
            if not await self._is_covered(request):
                return False
            job_id = await self._job_of(request)
            if job_id is None:
                return False
        found = await self._server.job(job_id)
        if found is None:
            raise NoReceipt("the upload is gone at the catalog server")
        job, options = found
        match job.status:
            case "COMPLETED":
                await self._check(request, job)
                return True
            case "FAILED":
                raise NoReceipt(f"the catalog server failed on it: {job.error}")
            case "AWAITING_REVIEW":
                await self._answer(request, job, options)
            case _:
                await self._wait(request, job.status, at_most_s=_REVIEW_WAIT_S)
        return False

    async def _is_covered(self, request: Taken) -> bool:
        """Whether the flags that the completion announces are computed."""
        tracks = list(request.audio_uris or ())
        covered = await self._store.covered(request.remote_id, tracks)
        if covered.covered:
            return True
        if self._availability is None:
            raise NoReceipt(
                "BRIDGE_AVAILABILITY is false, so the flags would not be computed first"
            )
        if self._availability.refused is not None:
            raise NoReceipt(self._availability.refused)
        if covered.plays_s > _JOB_WAIT_S:
            raise NoReceipt("the availability job did not run in time")
        await self._requests.later(request, "waits for the availability job", in_s=_LOOK_S)
        return False

    async def _job_of(self, request: Taken) -> str | None:
        """The job of an earlier upload, or of one made now; None where it may still appear."""
        name = _name(request)
        for job in await self._server.own_jobs():
            if job.context_id == request.remote_id and job.filename == name:
                await self._requests.uploaded(request, job.id)
                return job.id
        if request.receipt_tries >= _MOST_UPLOADS:
            raise NoReceipt(f"{_MOST_UPLOADS} uploads had no answer")
        await self._requests.uploading(request, again_in_s=UPLOAD_S)
        reached("server.receipt_uploading")
        job_id = await self._server.upload(request.remote_id, filename=name, data=silence())
        reached("server.receipt_uploaded")
        await self._requests.uploaded(request, job_id)
        return job_id

    async def _answer(self, request: Taken, job: IngestionJob, options: Sequence[str]) -> None:
        """Answer the review, if it asks what a receipt is expected to be asked."""
        expected = f"album:{request.content_id}"
        if job.matched or job.converted or expected not in options:
            await self._server.delete_job(job.id)
            raise NoReceipt(f"its review asks something else: {', '.join(options)[:200]}")
        reached("server.receipt_resolving")
        if not await self._server.resolve(job.id, _CONTINUE):
            log.info("receipt_not_resolved", request_id=request.remote_id, job=job.id)
        reached("server.receipt_resolved")
        await self._wait(request, job.status, at_most_s=_REVIEW_WAIT_S)

    async def _wait(self, request: Taken, status: str, *, at_most_s: float) -> None:
        waited = await self._requests.since_upload_s(request)
        if waited > at_most_s:
            raise NoReceipt(f"it was {status} for {at_most_s:.0f} s")
        await self._requests.later(request, f"its receipt is {status}", in_s=_LOOK_S / 2)

    async def _check(self, request: Taken, job: IngestionJob) -> None:
        """Return if the completion touched nothing but the request.

        Raises:
            NoReceipt: it did something else.
        """
        album = (await self._server.albums([request.content_id]))[request.content_id]
        now = {track.id: track.audio_uri for track in album or ()}
        if job.converted or now != dict(request.audio_uris or {}):
            changed = sorted(
                id_ for id_, uri in (request.audio_uris or {}).items() if now.get(id_) != uri
            )
            log.error("receipt_changed_files", request_id=request.remote_id, tracks=changed)
            raise NoReceipt(f"a receipt has changed the files of {', '.join(changed) or 'a track'}")
        if not await self._is_completed(request.remote_id):
            raise NoReceipt("its job is completed, but the request is not")

    async def _is_completed(self, remote_id: str) -> bool:
        # The newest are last.
        for number in range(_MOST_PAGES):
            rows = await self._server.requests(offset=number * PAGE, status="COMPLETED")
            if any(row.id == remote_id and row.status == "COMPLETED" for row in rows):
                return True
            if len(rows) < PAGE:
                return False
        return False


def _name(request: Taken) -> str:
    """The name of its file; it tells the upload from others for the same request."""
    return f"receipt-{request.request_id}.wav"


def silence() -> bytes:
    """A tenth of a second of silence, at a bitrate that the server does not ask about."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(2)
        sound.setsampwidth(2)
        sound.setframerate(44_100)
        sound.writeframes(bytes(4 * 44_100 * LENGTH_MS // 1000))
    return file.getvalue()
