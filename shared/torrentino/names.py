"""Which names and paths, chosen by strangers, one can go by."""

from __future__ import annotations

import unicodedata

_MAX_PATH_CHARS = 4_096
_CONTROLS = frozenset({"Cc", "Cs"})


def usable_name(value: object) -> str | None:
    """A path relative to some folder, or None where one cannot go by it.

    Without "..", empty parts, control characters and halves of characters.
    """
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_PATH_CHARS:
        return None
    if any(part in ("", ".", "..") for part in value.split("/")):
        return None
    return None if any(unicodedata.category(char) in _CONTROLS for char in value) else value


def usable_path(value: object) -> str | None:
    """An absolute path, as `usable_name` has it; None otherwise."""
    if not isinstance(value, str) or not value.startswith("/"):
        return None
    relative = usable_name(value[1:].rstrip("/"))
    return None if relative is None else f"/{relative}"
