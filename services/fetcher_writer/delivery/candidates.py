"""Which files of a ticket may be its items' audio, and whether all that was placed is there."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from services.fetcher_writer.delivery.base import DeliveredFile
from services.fetcher_writer.delivery.foreign import without_foreign
from shared.errors import AttemptFailed, ErrorType
from shared.media.extensions import AUDIO_OR_VIDEO, extension_of, without_appended
from shared.media.formats import Accepted

_MAX_EVIDENCE_FILES = 20
# More than any release has. A ticket for a track may bring the album, or a box of albums.
MAX_TICKET_BYTES = 64 * 1024**3

# Padding files, files that the client leaves out, and macOS' metadata. "...Baby" and ".5" are
# titles.
_HIDDEN = re.compile(r"(^|/)\.[A-Za-z_~]")

_NON_AUDIO_ENDINGS = frozenset(
    {
        *("bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp", "pdf"),
        *("accurip", "cue", "log", "m3u", "m3u8", "pls", "sfv", "md5", "ffp", "sha1", "sha256"),
        *("nfo", "txt", "md", "rtf", "doc", "html", "htm", "url", "xml", "json", "lrc", "srt"),
        *("zip", "rar", "7z", "gz", "tar", "iso", "torrent", "exe", "db", "ini", "ds_store"),
        *("part", "parts", "!qb", "!ut", "aria2", "tmp"),
        # What a hybrid WavPack file lacks: it is announced as audio, and cannot be decoded alone.
        "wvc",
    }
)


def check_placed(
    files: Sequence[DeliveredFile],
    *,
    files_placed: int | None,
    final_size_bytes: int | None,
    names: Collection[str] = (),
    beside: bool = False,
) -> list[DeliveredFile]:
    """Those of the files that Torrentino has placed, by the number and bytes that it reports.

    Files of other programs beside them are left out where the rest has these numbers. What
    Torrentino does not report (None) is not compared; there must be at least one file. `names`:
    what it was asked to place, where that is known. `beside`: more files than were placed are
    accepted too, which tells too little of a listing that lags.

    Raises:
        AttemptFailed: STORAGE, with both sides as evidence. A network folder may lag: the caller
            lists again before it gives up.
    """
    ours = without_foreign(files)
    named = [file for file in files if file.name in names]
    sets = [named, files, ours, audio_candidates(ours)]
    if files_placed is None and final_size_bytes is None:
        sets.remove(files)
    if files_placed == 1:
        sets.append([file for file in ours if file.size_bytes == final_size_bytes][:1])
    found = next((each for each in sets if _fits(each, files_placed, final_size_bytes)), None)
    if found is None and beside and _has_more(ours, files_placed, final_size_bytes):
        found = ours
    if found is None or _bytes(found) > MAX_TICKET_BYTES:
        raise _not_placed(files, files_placed, final_size_bytes)
    return list(found)


def _fits(
    files: Sequence[DeliveredFile], files_placed: int | None, final_size_bytes: int | None
) -> bool:
    return (
        bool(files)
        and files_placed in (None, len(files))
        and final_size_bytes in (None, _bytes(files))
    )


def _has_more(
    files: Sequence[DeliveredFile], files_placed: int | None, final_size_bytes: int | None
) -> bool:
    if files_placed == 1 and final_size_bytes is not None:
        return False  # the one file would have been found by its bytes
    return (
        bool(files)
        and len(files) >= (files_placed or 0)
        and _bytes(files) >= (final_size_bytes or 0)
        and files_placed != 0
    )


def _bytes(files: Sequence[DeliveredFile]) -> int:
    return sum(file.size_bytes for file in files)


def _not_placed(
    files: Sequence[DeliveredFile], files_placed: int | None, final_size_bytes: int | None
) -> AttemptFailed:
    total_bytes = _bytes(files)
    if not without_foreign(files):
        message = "Torrentino reports it complete, but its folder has no usable files"
    elif total_bytes > MAX_TICKET_BYTES:
        message = f"the ticket placed {total_bytes} bytes, at most {MAX_TICKET_BYTES} are taken"
    elif files_placed is not None and len(files) != files_placed:
        message = f"found {len(files)} files, Torrentino placed {files_placed}"
    else:
        message = f"found {total_bytes} bytes, Torrentino placed {final_size_bytes}"
    found = [{"name": f.name, "size_bytes": f.size_bytes} for f in files[:_MAX_EVIDENCE_FILES]]
    evidence = {
        "found": found,
        "found_count": len(files),
        "found_bytes": total_bytes,
        "files_placed": files_placed,
        "final_size_bytes": final_size_bytes,
    }
    return AttemptFailed(ErrorType.STORAGE, message, evidence)


def audio_candidates(files: Sequence[DeliveredFile]) -> list[DeliveredFile]:
    """The files that may be audio: those named as audio first, the largest first among equals.

    The order is a hint. What a file is, its content decides.
    """
    possible = [
        file
        for file in without_foreign(files)
        if _ending(file.name) not in _NON_AUDIO_ENDINGS and not _HIDDEN.search(file.name)
    ]
    return sorted(
        possible,
        key=lambda file: (not is_named_audio(file.name), -file.size_bytes, file.name),
    )


def without_refused(files: Sequence[DeliveredFile], accepted: Accepted) -> list[DeliveredFile]:
    """Those that may pass by the endings of their names. What Torrentino converted always may."""
    return [
        file
        for file in files
        if file.name != without_appended(file.name)
        or not is_named_audio(file.name)
        or accepted.ending(extension_of(file.name))
    ]


def is_named_audio(name: str) -> bool:
    """Whether the file is named as audio."""
    return _ending(name) in AUDIO_OR_VIDEO


def cue_sheets(files: Sequence[DeliveredFile]) -> list[DeliveredFile]:
    """The files that list the tracks in another file."""
    return [file for file in files if _ending(file.name) == "cue" and not _HIDDEN.search(file.name)]


def _ending(name: str) -> str:
    return extension_of(without_appended(name))
