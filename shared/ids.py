"""Identifiers of the catalog, checked before they touch a path, a query or a URL."""

from __future__ import annotations

import re

from shared.errors import InvalidRequest

# The catalog's ids are Spotify's (22 characters of base62), its own fixtures use others. All are
# safe as a file name; six characters are needed for the three levels of folders.
_CONTENT_ID = re.compile(r"[A-Za-z0-9_-]{6,64}", re.ASCII)
# Ids that others give to users, requests and scans: they end in headers and logs.
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
        InvalidRequest: it is empty, longer than 128, or has other than printable ASCII characters.
    """
    if not _TOKEN.fullmatch(value):
        raise InvalidRequest(f"{what}: send 1 to 128 printable ASCII characters without spaces")
    return value
