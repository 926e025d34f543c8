"""JSON that others send: one object, and none that two readers would read differently."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NoReturn

from shared.errors import InvalidRequest


def json_object(body: bytes) -> dict[str, Any]:
    """The object that `body` is.

    Refused, beside what is no JSON: a name that stands twice in an object (which of the two
    counts?), NaN and Infinity, numbers of thousands of digits, and nesting that is too deep.

    Raises:
        InvalidRequest: with the reason.
    """
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_none)
    except RecursionError as error:
        raise InvalidRequest(
            "the body is not JSON that we read: it is nested too deeply"
        ) from error
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON: {error}"[:500]) from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body is not a JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{ascii(twice)[:100]} stands there twice")
    return found


def _none(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
