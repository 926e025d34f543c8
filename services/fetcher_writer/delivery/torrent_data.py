"""Where a torrent's data are in the download folder, when the name is not enough."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable

from services.fetcher_writer.delivery.base import NotThere
from shared.errors import AttemptFailed, ErrorType
from shared.matching.titles import fold


async def find_entry(
    name: str,
    size_bytes: int | None,
    *,
    exact: bool,
    measure: Callable[[str], Awaitable[Collection[int] | None]],
    list_names: Callable[[], Awaitable[Iterable[str]]],
    most: int | None = None,
) -> str | None:
    """The entry that has the torrent's data: see `Delivery.locate`. None: no entry has them.

    `measure` gives the bytes of an entry with all that is in it, and those without what other
    programs have left there; None when there is no such entry.
    The entry of the name is measured first. The others are listed only if that one does not have
    the bytes, and up to `most` of them are measured: first those that share the most words with
    the name.
    """
    own_bytes = await measure(name)
    if own_bytes is not None and (not size_bytes or size_bytes in own_bytes):
        return name
    if size_bytes:
        for entry in _nearest_first(name, await list_names())[:most]:
            if size_bytes in (await measure(entry) or ()):
                return entry
    return None if own_bytes is None or exact else name


def _nearest_first(name: str, entries: Iterable[str]) -> list[str]:
    words = frozenset(fold(name).split())
    return sorted(entries, key=lambda entry: (-len(words & set(fold(entry).split())), entry))


def not_there(
    path: str, *, root: str, here: str, above_is_there: bool, own_folder: bool
) -> AttemptFailed:
    """The error for a torrent whose data are not where they should be.

    `own_folder`: the folder above is no other torrent's, so that its being there shows that this is
    the client's folder.
    """
    what = "nothing there has its bytes" if above_is_there else "there is no such folder"
    message = (
        f"the torrent client has it at {path}, which is below {here} here, and {what}: is that the"
        f" folder that the client calls {root}?"
    )
    evidence = {"path": path[:500], "downloads_root": root, "here": here}
    if above_is_there and own_folder:
        return AttemptFailed(ErrorType.STORAGE, message, evidence)
    return NotThere(message, evidence)
