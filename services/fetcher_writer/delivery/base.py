"""How the files of a finished ticket reach us: the port, and what all of its adapters share.

Torrentino's API gives out no file. `shared_folder.SharedFolder` collects from a folder that both
see, `http_files.HttpFiles` from a file server beside Torrentino. A ticket's folder may be looked
at only when the ticket is completed: until then files grow under their final names.
`torrent_folder.TorrentFolder` takes the originals where the torrent client keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from shared.errors import AttemptFailed, ErrorType
from shared.matching.titles import fold
from shared.media.extensions import AUDIO_OR_VIDEO, extension_of, without_appended

MAX_DEPTH = 8
MAX_ENTRIES = 10_000
_MAX_EVIDENCE_FILES = 20

# More than any single track has: an hour of 192 kHz, 24 bit stereo is 4.1 GB without compression.
MAX_FILE_BYTES = 4 * 1024**3
# More than any release has. A ticket for a track may well bring the album, or a box of albums.
MAX_TICKET_BYTES = 64 * 1024**3

# Padding, what the client was told to leave out, and what a Mac leaves beside each file. "...Baby"
# and ".5" are titles.
_HIDDEN = re.compile(r"(^|/)\.[A-Za-z_~]")

_NON_AUDIO_ENDINGS = frozenset(
    {
        *("bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp", "pdf"),
        *("accurip", "cue", "log", "m3u", "m3u8", "pls", "sfv", "md5", "ffp", "sha1", "sha256"),
        *("nfo", "txt", "md", "rtf", "doc", "html", "htm", "url", "xml", "json", "lrc", "srt"),
        *("zip", "rar", "7z", "gz", "tar", "iso", "torrent", "exe", "db", "ini", "ds_store"),
        *("part", "parts", "!qb", "!ut", "aria2", "tmp"),
    }
)


# Where a ticket's files are: placed by Torrentino, or left where its torrent client has them.
DeliveryName = Literal["incoming", "torrent"]


@dataclass(frozen=True, kw_only=True)
class DeliveredFile:
    """A file of a ticket; `name` is relative to the ticket's folder, with forward slashes.

    Of a torrent that is one file, it is that file's own.
    """

    name: str
    size_bytes: int


class Delivery(Protocol):
    """Where finished files lie. `dest_path` is always the place as Torrentino sees it.

    Every method raises `DependencyDown` or `Misconfigured` ("incoming") while the place cannot be
    reached, and `AttemptFailed` (STORAGE) for a `dest_path` that is not below the root.
    """

    async def files(self, dest_path: str) -> list[DeliveredFile]:
        """All files below the folder, sorted by name; none when there is no such folder.

        No folders, links, empty files, or names that could lead elsewhere; at most `MAX_DEPTH`
        folders deep. What cannot tell a link to a file from a file, lists it and does not
        `collect` it.

        Raises:
            AttemptFailed: STORAGE, there are more than `MAX_ENTRIES` entries.
        """
        ...

    async def locate(self, path: str, size_bytes: int | None, *, exact: bool = False) -> str:
        """Where a torrent's data are: at `path`, or the entry beside it that has just these bytes.

        A torrent client may tell another name than the data have on disk. With `exact` another
        number of bytes is another torrent.

        Raises:
            AttemptFailed: STORAGE, nothing there is it; the message names both sides' paths.
        """
        ...

    async def collect(self, dest_path: str, file: DeliveredFile, temp: Path) -> str:
        """Put the whole file at `temp`, on disk, and return how: hardlink, reflink, copy, http.

        Raises:
            AttemptFailed: STORAGE, the file is gone or is not what the listing said.
            Unavailable: the place or our disk cannot do it now; nothing is left at `temp`.
        """
        ...

    async def takes_room(self, media_path: Path) -> bool:
        """Whether what is collected needs space of its own on the disk of the media root."""
        ...

    async def remove(self, dest_path: str) -> bool:
        """The folder is gone afterwards, or False: removing it is not ours to do."""
        ...

    async def check(self) -> None:
        """Return when the place is visible; otherwise say which setting to look at.

        Raises:
            DependencyDown: it does not answer now.
            Misconfigured: it cannot work until a person changes something.
        """
        ...

    async def close(self) -> None:
        """Close what is open; nothing is called afterwards."""
        ...


def parts_below(
    dest_root: str, dest_path: str, *, setting: str = "TORRENTINO_DEST_ROOT"
) -> tuple[str, ...]:
    """The path of a ticket's folder below the root, one name each and at least one.

    `setting` is the variable that names the root.

    Raises:
        AttemptFailed: STORAGE, it is not below the root or could lead out of it.
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
        # Bytes that are no UTF-8. Torrentino cannot have made such a name.
        return False
    return True


def name_parts(file: DeliveredFile) -> list[str]:
    """The names that lead from the ticket's folder to the file.

    Raises:
        AttemptFailed: STORAGE, they could lead elsewhere.
    """
    parts = file.name.split("/")
    if all(is_safe_name(part) for part in parts):
        return parts
    raise AttemptFailed(
        ErrorType.STORAGE, "the file has an unusable name", {"file": ascii(file.name)[:500]}
    )


def nearest_first(name: str, entries: Iterable[str]) -> list[str]:
    """Names, those first that share the most words with `name`."""
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


def check_placed(
    files: Sequence[DeliveredFile], *, files_placed: int | None, final_size_bytes: int | None
) -> None:
    """Return when the files are those that Torrentino says it has placed.

    What Torrentino does not say (None) is not compared, but there is at least one file.

    Raises:
        AttemptFailed: STORAGE, with both sides as evidence. A network folder may lag: list again
            before believing it.
    """
    total_bytes = sum(file.size_bytes for file in files)
    if not files:
        message = "Torrentino says it is complete, but its folder has no files for us"
    elif total_bytes > MAX_TICKET_BYTES:
        message = f"the ticket placed {total_bytes} bytes, {MAX_TICKET_BYTES} are the most we take"
    elif files_placed is not None and len(files) != files_placed:
        message = f"found {len(files)} files, Torrentino placed {files_placed}"
    elif final_size_bytes is not None and total_bytes != final_size_bytes:
        message = f"found {total_bytes} bytes, Torrentino placed {final_size_bytes}"
    else:
        return
    found = [{"name": f.name, "size_bytes": f.size_bytes} for f in files[:_MAX_EVIDENCE_FILES]]
    evidence = {
        "found": found,
        "found_count": len(files),
        "found_bytes": total_bytes,
        "files_placed": files_placed,
        "final_size_bytes": final_size_bytes,
    }
    raise AttemptFailed(ErrorType.STORAGE, message, evidence)


def audio_candidates(files: Sequence[DeliveredFile]) -> list[DeliveredFile]:
    """The files that may be audio: those named so first, the biggest first among equals.

    A hint for the order of looking only: what a file is, its content decides.
    """
    possible = [
        file
        for file in files
        if _ending(file.name) not in _NON_AUDIO_ENDINGS and not _HIDDEN.search(file.name)
    ]
    return sorted(
        possible,
        key=lambda file: (not is_named_audio(file.name), -file.size_bytes, file.name),
    )


def is_named_audio(name: str) -> bool:
    """Whether the name of the file says that it is audio."""
    return _ending(name) in AUDIO_OR_VIDEO


def cue_sheets(files: Sequence[DeliveredFile]) -> list[DeliveredFile]:
    """The files that say where the songs are in another one."""
    return [file for file in files if _ending(file.name) == "cue" and not _HIDDEN.search(file.name)]


def _ending(name: str) -> str:
    return extension_of(without_appended(name))
