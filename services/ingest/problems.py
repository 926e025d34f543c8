"""The errors of the API as RFC 9457 `application/problem+json`, mapped here and nowhere else."""

from __future__ import annotations

from http import HTTPStatus

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.ingest.auth import NotAllowed, NotAuthenticated
from shared.errors import Conflict, InvalidRequest, LimitReached, Refused, Unavailable, Unknown

log = structlog.get_logger()

_TYPE = "urn:pezzottify:problem"

# error, status, the stable end of `type`, title
PROBLEMS: tuple[tuple[type[Refused], int, str, str], ...] = (
    (NotAuthenticated, 401, "not-authenticated", "An API key is needed"),
    (NotAllowed, 403, "not-allowed", "This key may not do that"),
    (InvalidRequest, 422, "invalid-request", "The request is malformed"),
    (Unknown, 404, "unknown", "There is no such thing"),
    (LimitReached, 409, "limit-reached", "A limit is reached"),
    (Conflict, 409, "conflict", "Not in this state"),
)
_RETRY_AFTER_S = 5


def problem(
    status: int, type_: str, title: str, detail: str, headers: dict[str, str] | None = None
) -> Response:
    """A problem document."""
    body = {"type": f"{_TYPE}:{type_}", "title": title, "status": status, "detail": detail}
    return JSONResponse(
        body, status_code=status, headers=headers, media_type="application/problem+json"
    )


async def refused(_: Request, error: Exception) -> Response:
    """The caller has to change something."""
    for kind, status, type_, title in PROBLEMS:
        if isinstance(error, kind):
            challenge = {"WWW-Authenticate": "Bearer"} if status == 401 else None
            return problem(status, type_, title, str(error), challenge)
    raise error


async def unavailable(_: Request, error: Exception) -> Response:
    """A dependency is unavailable; the same request will work later."""
    assert isinstance(error, Unavailable)
    log.warning("request_unavailable", dependency=error.dependency, detail=error.detail)
    return problem(
        503,
        "unavailable",
        f"{error.dependency} is not available",
        f"{error.detail}; send the same request again in a few seconds",
        {"Retry-After": str(_RETRY_AFTER_S)},
    )


async def http_error(_: Request, error: Exception) -> Response:
    """An error of Starlette: no such route, wrong method."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    detail = {
        404: "there is no such route; /v1/download/… are the routes",
        405: "this route takes another method",
    }.get(error.status_code, error.detail)
    return problem(
        error.status_code,
        phrase.lower().replace(" ", "-"),
        phrase,
        detail,
        dict(error.headers or {}),
    )


async def bug(request: Request, error: Exception) -> Response:
    """A bug of this service; the details are in the log, not in the answer."""
    log.error("request_failed", path=request.url.path, exc_info=error)
    return problem(
        500, "internal", "Something is wrong here", "this is a bug of the service; see its log"
    )
