"""Checks of untrusted input: JSON, identifiers, text and paths."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from typing import Any, NoReturn

from shared.errors import InvalidRequest


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`.

    It refuses invalid JSON, and also a name that an object has twice, NaN and Infinity, numbers of
    thousands of digits, and nesting that is too deep.

    Raises:
        InvalidRequest: with the reason.
    """
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_reject)
    except RecursionError as error:
        raise InvalidRequest(
            "the body is not JSON that we accept: it is nested too deeply"
        ) from error
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON: {error}"[:500]) from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{ascii(twice)[:100]} appears twice")
    return found


def _reject(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


# The catalog's ids are Spotify's (22 characters of base62); its test data has others. All are safe
# as a file name; the three levels of folders need six characters.
_CONTENT_ID = re.compile(r"[A-Za-z0-9_-]{6,64}", re.ASCII)
# Ids that clients give to users, requests and scans: they end up in headers and logs.
_TOKEN = re.compile(r"[!-~]{1,128}", re.ASCII)


def content_id(value: str, *, what: str) -> str:
    """Return `value` if it can be the id of a track or an album.

    Raises:
        InvalidRequest: it has other characters, or a length outside 6 to 64.
    """
    if not _CONTENT_ID.fullmatch(value):
        shown = value if len(value) <= 80 else f"{value[:77]}..."
        raise InvalidRequest(
            f"{what} {shown!r} is not an id: send 6 to 64 letters, digits, '-' or '_'"
            " (Spotify ids have 22)"
        )
    return value


def token(value: str, *, what: str) -> str:
    """Return `value` if it can be the id of a user, a request or a scan.

    Raises:
        InvalidRequest: it is empty, longer than 128, or not printable ASCII without spaces.
    """
    if not _TOKEN.fullmatch(value):
        raise InvalidRequest(f"{what}: send 1 to 128 printable ASCII characters without spaces")
    return value


# The user id of a caller with the administrator's key.
ADMINISTRATOR = "admin"


def user(value: str, *, what: str) -> str:
    """Return `value` if it can be the id of a user.

    Raises:
        InvalidRequest: as `token`; or it is the administrator's, whose items it would then see.
    """
    if token(value, what=what) == ADMINISTRATOR:
        raise InvalidRequest(f"{what}: {ADMINISTRATOR!r} is the administrator: send a user's id")
    return value


# Control and format characters (ESC, the marks that change the direction of writing, and characters
# without width among them), separators of lines and paragraphs, halves of surrogate pairs.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
# The joiners, which some scripts and emoji of several parts need.
_JOINERS = "\u200c\u200d"


def printable(text: str, *, keep: str = "") -> str:
    """`text` with an escape for every character that a terminal would act on or hide.

    Characters in `keep` stay.
    """
    if text.isprintable():
        return text
    return "".join(char if char in keep or not _unsafe(char) else _escaped(char) for char in text)


def _unsafe(char: str) -> bool:
    return char not in _JOINERS and unicodedata.category(char) in _UNSAFE


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


_MAX_PATH_CHARS = 4_096
_CONTROLS = frozenset({"Cc", "Cs"})


def usable_name(value: object) -> str | None:
    """`value` if it is a usable path relative to a folder, else None.

    Usable: no "..", no empty parts, no control characters, no halves of characters.
    """
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_PATH_CHARS:
        return None
    if any(part in ("", ".", "..") for part in value.split("/")):
        return None
    return None if any(unicodedata.category(char) in _CONTROLS for char in value) else value


def usable_path(value: object) -> str | None:
    """`value` if it is an absolute path whose parts `usable_name` accepts, else None."""
    if not isinstance(value, str) or not value.startswith("/"):
        return None
    relative = usable_name(value[1:].rstrip("/"))
    return None if relative is None else f"/{relative}"
