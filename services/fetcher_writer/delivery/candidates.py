"""Which files of a ticket may be its items' audio, and whether all that was placed is there."""

from __future__ import annotations

import re
from collections.abc import Sequence

from services.fetcher_writer.delivery.base import DeliveredFile
from shared.errors import AttemptFailed, ErrorType
from shared.media.extensions import AUDIO_OR_VIDEO, extension_of, without_appended

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
    }
)


def check_placed(
    files: Sequence[DeliveredFile], *, files_placed: int | None, final_size_bytes: int | None
) -> None:
    """Return when the files are those that Torrentino reports as placed.

    What Torrentino does not report (None) is not compared; there must be at least one file.

    Raises:
        AttemptFailed: STORAGE, with both sides as evidence. A network folder may lag: the caller
            lists again before it gives up.
    """
    total_bytes = sum(file.size_bytes for file in files)
    if not files:
        message = "Torrentino reports it complete, but its folder has no usable files"
    elif total_bytes > MAX_TICKET_BYTES:
        message = f"the ticket placed {total_bytes} bytes, at most {MAX_TICKET_BYTES} are taken"
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
    """The files that may be audio: those named as audio first, the largest first among equals.

    The order is a hint. What a file is, its content decides.
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
    """Whether the file is named as audio."""
    return _ending(name) in AUDIO_OR_VIDEO


def cue_sheets(files: Sequence[DeliveredFile]) -> list[DeliveredFile]:
    """The files that list the tracks in another file."""
    return [file for file in files if _ending(file.name) == "cue" and not _HIDDEN.search(file.name)]


def _ending(name: str) -> str:
    return extension_of(without_appended(name))
