"""The routes of the catalog server that the bridge uses, as frozen values.

Ids and texts come from another program: what has not the shape that is read here is left out, or
is `Misconfigured`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import quote

from services.bridge.server_http import (
    SERVER,
    Answer,
    CallRefused,
    Json,
    NotEnabled,
    Session,
    unreadable,
)
from shared.events import ContentKind

# The permissions, by what needs them.
LISTS = ("RequestContent", "ViewAnalytics")
ENDS = ("RequestContent", "EditCatalog")
UPLOADS = ("EditCatalog",)
ASKS = ("AccessCatalog",)
RUNS_JOBS = ("ServerAdmin",)

PAGE = 500
BATCH = 100
# A resolved album may have a thousand tracks.
ALBUMS_A_BATCH = 10
_MOST_JOBS = 1000
_JOB = "/v1/admin/jobs/catalog_availability_stats"
_KINDS: Mapping[object, ContentKind] = {"ALBUM": "album", "TRACK_AUDIO": "track"}
_PRIORITIES: Mapping[object, int] = {"Urgent": 1, "User": 2, "Expansion": 3, "Background": 3}

Triggered = Literal["started", "running"]


@dataclass(frozen=True, kw_only=True)
class RemoteRequest:
    """A request in the server's queue; `kind` is None for what is no track and no album."""

    id: str
    kind: ContentKind | None
    content_id: str
    status: str
    priority: int
    user_id: str | None
    content_name: str | None
    artist_name: str | None
    created_at: int | None


@dataclass(frozen=True, kw_only=True)
class RemoteTrack:
    """What the server says of a track: whether it plays, and by which file."""

    id: str
    plays: bool
    audio_uri: str | None
    duration_ms: int


@dataclass(frozen=True, kw_only=True)
class JobRun:
    """The last run of a background job, if there was one since the server's start."""

    running: bool
    # RFC 3339, by the server's clock; only compared with each other.
    started_at: str | None
    status: str | None
    error: str | None
    took_s: float | None


@dataclass(frozen=True, kw_only=True)
class IngestionJob:
    """An upload that the server handles."""

    id: str
    status: str
    context_id: str | None
    filename: str
    matched: int
    converted: int
    error: str | None


class CatalogServer:
    """The server's API. Each call raises `DependencyDown` or `Misconfigured`; see `Session`."""

    def __init__(self, session: Session) -> None:
        self.session = session

    # --- requests

    async def requests(
        self, *, offset: int, limit: int = PAGE, status: str | None = None
    ) -> list[RemoteRequest]:
        """One page of the queue: all that are not completed, or those of one status.

        The server ignores a status that it does not know: the caller checks each row.
        """
        query = f"limit={limit}&offset={offset}&top_level_only=true"
        query += f"&status={status}" if status else "&exclude_completed=true"
        path = f"/v1/download/admin/requests?{query}"
        rows = (await self.session.call("GET", path, needs=LISTS)).json()
        if not isinstance(rows, list):
            raise unreadable("its queue is not a list")
        return [_request(row) for row in rows if isinstance(row, dict)]

    async def delete_request(self, remote_id: str) -> bool:
        """Delete a request; False where there was none any more.

        Raises:
            CallRefused: it is there, and the server does not delete it.
        """
        path = f"/v1/download/admin/request/{quote(remote_id, safe='')}"
        answer = await self.session.call("DELETE", path, needs=ENDS, own=(400, 404))
        if answer.status < 300:
            answer.object()
            return True
        if "not found" not in answer.text.lower():
            raise CallRefused(f"the catalog server does not delete it: {answer.text}")
        return False

    # --- what plays

    async def tracks(self, ids: Sequence[str]) -> dict[str, RemoteTrack | None]:
        """What the server says of these tracks, at most `BATCH`; None for one it does not know."""
        assert len(ids) <= BATCH, "the server takes 100 at a time"
        found = await self._batch({"tracks": [{"id": each} for each in ids]}, "tracks")
        return {each: _track(found.get(each)) for each in ids}

    async def albums(self, ids: Sequence[str]) -> dict[str, list[RemoteTrack] | None]:
        """The tracks of these albums, at most `ALBUMS_A_BATCH`; None for one it does not know."""
        assert len(ids) <= ALBUMS_A_BATCH, "their answer is large"
        body = {"albums": [{"id": each, "resolved": True} for each in ids]}
        found = await self._batch(body, "albums")
        return {each: _album(found.get(each)) for each in ids}

    async def _batch(self, body: Json, kind: str) -> Json:
        answer = await self.session.call("POST", "/v1/content/batch", needs=ASKS, body=body)
        found = answer.object().get(kind)
        if not isinstance(found, dict):
            raise unreadable(f"a batch without {kind}")
        return found

    # --- availability

    async def trigger_availability(self) -> Triggered:
        """Start the job that computes the flags, or say that it runs already."""
        answer = await self.session.call(
            "POST", f"{_JOB}/trigger", needs=RUNS_JOBS, own=(404, 409, 503)
        )
        _require_job(answer)
        return "running" if answer.status == 409 else "started"

    async def availability(self) -> JobRun:
        """The state of that job."""
        answer = await self.session.call("GET", _JOB, needs=RUNS_JOBS, own=(404, 503))
        _require_job(answer)
        said = answer.object()
        last = said.get("last_run")
        last = last if isinstance(last, dict) else {}
        return JobRun(
            running=said.get("is_running") is True,
            started_at=_text(last.get("started_at")),
            status=_text(last.get("status")),
            error=_text(last.get("error_message")),
            took_s=_seconds(last.get("started_at"), last.get("finished_at")),
        )

    # --- ingestion

    async def upload(self, remote_id: str, *, filename: str, data: bytes) -> str:
        """Upload a file for a request; the id of its job. Once for a call."""
        answer = await self.session.call(
            "POST",
            "/v1/ingestion/upload",
            needs=UPLOADS,
            files={"file": (filename, data, "audio/wav")},
            fields={"context_type": "download_request", "context_id": remote_id},
        )
        job = answer.object().get("job_id")
        if not isinstance(job, str) or not job:
            raise unreadable("an upload without a job")
        return job

    async def own_jobs(self) -> list[IngestionJob]:
        """The uploads of this account, the newest first."""
        path = f"/v1/ingestion/my-jobs?limit={_MOST_JOBS}"
        rows = (await self.session.call("GET", path, needs=UPLOADS)).json()
        if not isinstance(rows, list):
            raise unreadable("its jobs are not a list")
        return [_job(row) for row in rows if isinstance(row, dict)]

    async def job(self, job_id: str) -> tuple[IngestionJob, list[str]] | None:
        """An upload, and the ids of the answers that its review offers; None if it is gone."""
        path = f"/v1/ingestion/job/{quote(job_id, safe='')}/details"
        answer = await self.session.call("GET", path, needs=UPLOADS, own=(404,))
        if answer.status == 404:
            return None
        said = answer.object()
        job = said.get("job")
        if not isinstance(job, dict):
            raise unreadable("a job without its fields")
        return _job(job), _options(said.get("review"))

    async def resolve(self, job_id: str, option: str) -> bool:
        """Answer the review of an upload; False where it does not wait for one."""
        path = f"/v1/ingestion/review/{quote(job_id, safe='')}/resolve"
        answer = await self.session.call(
            "POST", path, needs=UPLOADS, body={"selected_option": option}, own=(400, 404)
        )
        return answer.status < 300

    async def delete_job(self, job_id: str) -> None:
        """Remove an upload; one that is gone already is fine."""
        path = f"/v1/ingestion/job/{quote(job_id, safe='')}"
        await self.session.call("DELETE", path, needs=UPLOADS, own=(400, 404))


def _require_job(answer: Answer) -> None:
    # A server without this job, or without its scheduler, can do everything else.
    if answer.status in (404, 503):
        raise NotEnabled(SERVER, f"has no availability job ({answer.status}: {answer.text})")


def _request(row: Json) -> RemoteRequest:
    id_, content_id = row.get("id"), row.get("content_id")
    if not isinstance(id_, str) or not isinstance(content_id, str):
        raise unreadable("a request without an id")
    created = row.get("created_at")
    return RemoteRequest(
        id=id_,
        kind=_KINDS.get(row.get("content_type")),
        content_id=content_id,
        status=str(row.get("status")),
        priority=_PRIORITIES.get(row.get("priority"), 2),
        user_id=_text(row.get("requested_by_user_id")),
        content_name=_text(row.get("content_name")),
        artist_name=_text(row.get("artist_name")),
        created_at=created if isinstance(created, int) else None,
    )


def _track(result: object) -> RemoteTrack | None:
    if not isinstance(result, dict) or not isinstance(result.get("ok"), dict):
        return None
    return _fields(result["ok"])


def _fields(track: Json) -> RemoteTrack:
    length = track.get("duration_ms")
    return RemoteTrack(
        id=str(track.get("id")),
        plays=track.get("availability") == "available",
        audio_uri=_text(track.get("audio_uri")),
        duration_ms=length if isinstance(length, int) else 0,
    )


def _album(result: object) -> list[RemoteTrack] | None:
    if not isinstance(result, dict) or not isinstance(result.get("ok"), dict):
        return None
    discs = result["ok"].get("discs")
    if not isinstance(discs, list):
        raise unreadable("an album without discs")
    return [
        _fields(track)
        for disc in discs
        if isinstance(disc, dict)
        for track in disc.get("tracks") or ()
        if isinstance(track, dict)
    ]


def _job(row: Json) -> IngestionJob:
    return IngestionJob(
        id=str(row.get("id")),
        status=str(row.get("status")),
        context_id=_text(row.get("context_id")),
        filename=str(row.get("original_filename")),
        matched=_number(row.get("tracks_matched")),
        converted=_number(row.get("tracks_converted")),
        error=_text(row.get("error_message")),
    )


def _options(review: object) -> list[str]:
    """The ids in a review's options, which are JSON in a text."""
    text = review.get("options") if isinstance(review, dict) else None
    try:
        options = json.loads(text) if isinstance(text, str) else []
    except ValueError:
        return []
    return [str(each.get("id")) for each in options if isinstance(each, dict)]


def _number(value: object) -> int:
    """A count; what cannot be read counts as one, so that it is never taken for none."""
    return value if isinstance(value, int) else 1


def _text(value: object) -> str | None:
    """A text that PostgreSQL takes, at most 1,000 characters."""
    return value.replace("\x00", "")[:1000] if isinstance(value, str) else None


def _seconds(begin: object, end: object) -> float | None:
    try:
        took = datetime.fromisoformat(str(end)) - datetime.fromisoformat(str(begin))
    except ValueError:
        return None
    return took.total_seconds()
