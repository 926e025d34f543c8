"""The port through which files of a finished ticket are collected, and what its adapters share.

Torrentino's API serves no files. Two adapters collect what Torrentino placed: `SharedFolder` from a
folder that both see, `HttpFolder` from a file server beside Torrentino. Their folder may be read
only when the ticket is completed: until then files grow under their final names. `DownloadFolder`
and `HttpDownloads` do the same for the originals in the torrent client's own folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from shared.errors import AttemptFailed, ErrorType, Misconfigured

MAX_DEPTH = 8
MAX_ENTRIES = 10_000
# More than any single track has: an hour of 192 kHz, 24 bit stereo is 4.1 GB without compression.
MAX_FILE_BYTES = 4 * 1024**3

# Where a ticket's files are: placed by Torrentino, or left where its torrent client has them.
DeliveryName = Literal["incoming", "torrent"]


@dataclass(frozen=True, kw_only=True)
class DeliveredFile:
    """A file of a ticket; `name` is relative to the ticket's folder, with forward slashes.

    A torrent that is one file has no folder: the name is that of the file.
    """

    name: str
    size_bytes: int


class NotThere(AttemptFailed):
    """What Torrentino reports as complete is not in the place, not even its folder.

    It was removed, or the place is another one than Torrentino's.
    """

    def __init__(self, message: str, evidence: Mapping[str, object] | None = None) -> None:
        super().__init__(ErrorType.STORAGE, message, evidence)


class Delivery(Protocol):
    """Where finished files lie. `dest_path` is always the place as Torrentino sees it.

    Every method raises `DependencyDown` or `Misconfigured` ("incoming") while the place cannot be
    reached or an entry of it cannot be read, which its `path` then names; and `AttemptFailed`
    (STORAGE) for a `dest_path` that is not below the root.
    """

    async def files(self, dest_path: str) -> list[DeliveredFile]:
        """All files below the folder, sorted by name; none when there is no such folder.

        Left out: folders, links, empty files, folders of other programs with all in them, names
        that could lead elsewhere, and what lies more
        than `MAX_DEPTH` folders deep. An adapter that cannot tell a link to a file from a file
        lists the link, and refuses to `collect` it.

        Raises:
            AttemptFailed: STORAGE, there are more than `MAX_ENTRIES` entries.
        """
        ...

    async def exists(self, dest_path: str) -> bool:
        """Whether there is a folder or a file of this path."""
        ...

    async def proves(self, dest_path: str) -> bool:
        """Whether a ticket's files are there, and the first of them can be read."""
        ...

    async def identity(self) -> str:
        """What tells this place from another one that is mounted or served in its stead."""
        ...

    def another(self, dest_path: str) -> Misconfigured:
        """The error for a place that lacks what Torrentino has in `dest_path`, and all else."""
        ...

    async def locate(self, path: str, size_bytes: int | None, *, exact: bool = False) -> str:
        """Where a torrent's data are: at `path`, or the entry beside it that has just these bytes.

        A torrent client may report another name than the data have on disk. With `exact`, an entry
        of the name with another number of bytes is another torrent.

        Raises:
            NotThere: no entry has the data; the message names the path on both sides.
        """
        ...

    async def collect(self, dest_path: str, file: DeliveredFile, temp: Path) -> str:
        """Put the whole file at `temp`, on disk, and return how: hardlink, reflink, copy, http.

        Raises:
            AttemptFailed: STORAGE, the file is gone or is not what the listing said.
            Unavailable: the place or our disk cannot be used now; nothing is left at `temp`.
        """
        ...

    async def takes_room(self, media_path: Path) -> bool:
        """Whether a collected file takes space on the disk of the media root: a link does not."""
        ...

    async def remove(self, dest_path: str) -> bool:
        """Remove the folder; False: this adapter removes nothing."""
        ...

    async def check(self) -> None:
        """Return when the place is visible. The errors name the setting to check.

        Raises:
            DependencyDown: it does not answer now.
            Misconfigured: it cannot work until an operator changes a setting.
        """
        ...

    async def close(self) -> None:
        """Close connections; no method may be called afterwards."""
        ...


def parts_below(
    dest_root: str, dest_path: str, *, setting: str = "TORRENTINO_DEST_ROOT"
) -> tuple[str, ...]:
    """The path of a ticket's folder below the root, one name each and at least one.

    `setting` is the variable that names the root.

    Raises:
        AttemptFailed: STORAGE, the path is not below the root or could lead out of it.
    """
    root, path = PurePosixPath(dest_root), PurePosixPath(dest_path)
    if path.is_absolute() and path.is_relative_to(root):
        parts = path.relative_to(root).parts
        if parts and all(is_safe_name(part) for part in parts):
            return parts
    raise AttemptFailed(
        ErrorType.STORAGE,
        f"the ticket's folder is not below {setting}",
        {"dest_path": ascii(dest_path)[:500], "dest_root": dest_root},
    )


def is_safe_name(name: str) -> bool:
    """Whether `name` names an entry of a folder and nothing else, and can be stored as text."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        return False
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        # Bytes that are not UTF-8: Torrentino does not make such names.
        return False
    return True


def name_parts(file: DeliveredFile) -> list[str]:
    """The names on the path from the ticket's folder to the file.

    Raises:
        AttemptFailed: STORAGE, one of them could lead elsewhere.
    """
    parts = file.name.split("/")
    if all(is_safe_name(part) for part in parts):
        return parts
    raise AttemptFailed(
        ErrorType.STORAGE, "the file has an unusable name", {"file": ascii(file.name)[:500]}
    )
