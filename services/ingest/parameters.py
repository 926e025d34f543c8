"""What a caller sends: ids in the path, query parameters and a JSON body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple, TypeAlias

from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.errors import InvalidRequest
from shared.untrusted import content_id, json_object

Json: TypeAlias = dict[str, Any]
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]

_MAX_PER_PAGE = 200
_PER_PAGE = 50
_MAX_OFFSET = 1_000_000
_MAX_BODY_BYTES = 64 * 1024


class _Rest(StringConvertor):
    """The whole rest of the path, line breaks included; Starlette's `path` stops at one.

    An id with a slash in it is a malformed id and not another route.
    """

    regex = "(?s:.*)"


register_url_convertor("rest", _Rest())


PAGING = ("limit", "offset")


def route(path: str, handler: Handler, *, method: str = "GET", takes: Sequence[str] = ()) -> Route:
    """A route that takes only these query parameters, each once.

    A filter that is not known, or misspelt, would be left out silently, and the answer would have
    rows that were not asked for.
    """

    @wraps(handler)
    async def checked(request: Request) -> Response:
        names = [name for name, _ in request.query_params.multi_items()]
        for name in names:
            if name not in takes:
                known = ", ".join(takes) or "none"
                raise InvalidRequest(f"{name[:40]!r} is no parameter here; this route has: {known}")
            if names.count(name) > 1:
                raise InvalidRequest(f"{name} is given {names.count(name)} times: send it once")
        return await handler(request)

    return Route(path, checked, methods=[method])


class Paging(NamedTuple):
    """Which part of a list is wanted."""

    limit: int
    offset: int


def paging(request: Request) -> Paging:
    """The parameters `limit` and `offset`.

    Raises:
        InvalidRequest: one of them is not a number, or out of its range.
    """
    return Paging(
        limit=_number(request, "limit", default=_PER_PAGE, least=1, most=_MAX_PER_PAGE),
        offset=_number(request, "offset", default=0, least=0, most=_MAX_OFFSET),
    )


def track_filter(request: Request) -> str | None:
    """The parameter `track_id`, by which a list has the rows of one track; None: of all.

    Raises:
        InvalidRequest: it is malformed.
    """
    track_id = request.query_params.get("track_id")
    return None if track_id is None else content_id(track_id, what="track id")


def _number(request: Request, name: str, *, default: int, least: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidRequest(f"{name}={text[:40]!r}: send a whole number from {least} to {most}")
    if not least <= int(text) <= most:
        raise InvalidRequest(f"{name}={text}: send a number from {least} to {most}")
    return int(text)


def flag(request: Request, name: str) -> bool:
    """A parameter that is `true` or `false`, by default false.

    Raises:
        InvalidRequest: it is something else.
    """
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise InvalidRequest(f"{name}={text[:40]!r}: send true or false")
    return text == "true"


async def json_body(request: Request) -> Json:
    """The body, an empty object where there is none.

    Raises:
        InvalidRequest: it is too large, or no JSON object.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise InvalidRequest(f"the body is larger than {_MAX_BODY_BYTES} bytes")
    if not body.strip():
        return {}
    return json_object(body)
