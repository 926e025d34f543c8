"""Where a torrent's data are in the download folder, when the name is not enough."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from shared.errors import AttemptFailed, ErrorType
from shared.matching.titles import fold


async def find_entry(
    name: str,
    size_bytes: int | None,
    *,
    exact: bool,
    measure: Callable[[str], Awaitable[int | None]],
    list_names: Callable[[], Awaitable[Iterable[str]]],
    most: int | None = None,
) -> str | None:
    """The entry that has the torrent's data: see `Delivery.locate`. None: no entry has them.

    `measure` gives the bytes of an entry with all that is in it, None when there is no such entry.
    The entry of the name is measured first. The others are listed only if that one does not have
    the bytes, and up to `most` of them are measured: first those that share the most words with
    the name.
    """
    own_bytes = await measure(name)
    if own_bytes is not None and (not size_bytes or own_bytes == size_bytes):
        return name
    if size_bytes:
        for entry in _nearest_first(name, await list_names())[:most]:
            if await measure(entry) == size_bytes:
                return entry
    return None if own_bytes is None or exact else name


def _nearest_first(name: str, entries: Iterable[str]) -> list[str]:
    words = frozenset(fold(name).split())
    return sorted(entries, key=lambda entry: (-len(words & set(fold(entry).split())), entry))


def not_there(path: str, *, root: str, here: str, above_is_there: bool) -> AttemptFailed:
    """The error for a torrent whose data are not where they should be."""
    what = "nothing there has its bytes" if above_is_there else "there is no such folder"
    return AttemptFailed(
        ErrorType.STORAGE,
        f"the torrent client has it at {path}, which is below {here} here, and {what}: is that the"
        f" folder that the client calls {root}?",
        {"path": path[:500], "downloads_root": root, "here": here},
    )
