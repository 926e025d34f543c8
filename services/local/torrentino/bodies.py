"""Request bodies and errors in the forms of the real server's web framework."""

from __future__ import annotations

import json
import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

BODY_LIMIT_BYTES = 2 * 1024 * 1024
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_JSON_TYPE = re.compile(r"application/([a-z0-9!#$&^_.+-]+\+)?json", re.IGNORECASE)

Model = TypeVar("Model", bound=BaseModel)


class Answer(Exception):
    """Ends the handler with this response."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def error(status: int, text: str) -> Answer:
    """The form of the handlers: `{"error": text}`."""
    return Answer(JSONResponse({"error": text}, status))


def refusal(status: int, text: str) -> Answer:
    """The form of the framework: plain text."""
    return Answer(PlainTextResponse(text, status))


async def required(request: Request, model: type[Model]) -> Model:
    """The body as a `model`.

    Raises:
        Answer: 415 without a JSON content type, 413 above 2 MB, 400 for invalid JSON, 422
            for JSON of another shape.
    """
    content_type = request.headers.get("content-type", "")
    if not _JSON_TYPE.fullmatch(content_type.partition(";")[0].strip()):
        raise refusal(415, "Expected request with `Content-Type: application/json`")
    body = await _limited(request)
    try:
        return model.model_validate(_parsed(body))
    except ValidationError as exc:
        raise refusal(422, _shape_message(exc, len(body))) from exc


async def optional(request: Request, model: type[Model]) -> Model:
    """The body as a `model`, or an empty one if the request has no content type."""
    if "content-type" not in request.headers:
        return model()
    return await required(request, model)


def integer(request: Request, name: str, default: int) -> int:
    """A whole number from the query.

    Raises:
        Answer: 400 if it is not one, or does not fit 64 bits.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if not _INTEGER.fullmatch(text) or not -(2**63) <= int(text) < 2**63:
        raise refusal(
            400, f"Failed to deserialize query string: {name}: invalid digit found in string"
        )
    return int(text)


async def _limited(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            raise refusal(413, "Failed to buffer the request body: length limit exceeded")
    return bytes(body)


def _parsed(body: bytes) -> object:
    try:
        value: object = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()  # serde refuses a lone surrogate
    except (ValueError, RecursionError) as exc:
        raise refusal(400, f"Failed to parse the request body as JSON: {exc}") from exc
    return value


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _shape_message(exc: ValidationError, length: int) -> str:
    first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
    path = ".".join(str(step) for step in first["loc"])
    if first["type"] == "missing":
        what = f"missing field `{first['loc'][-1]}`"
    else:
        what = f"{path}: {first['msg']}"
    return (
        "Failed to deserialize the JSON body into the target type:"
        f" {what} at line 1 column {length}"
    )
