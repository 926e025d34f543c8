"""The metadata blocks of a FLAC file that ffprobe does not report."""

from __future__ import annotations

from pathlib import Path

from shared.media.file_bytes import FileBytes, opened
from shared.media.tails import after_id3

_CUESHEET, _LAST = 5, 0x80
# The largest CUESHEET block: 100 tracks with 100 index points each.
_MOST_BYTES = 256 * 1024
# Files have about five: more are no music.
_MOST_BLOCKS = 128


def cue_sheet_block(path: Path) -> bytes | None:
    """The content of the CUESHEET block; None where there is none. Blocks.

    Tags of other formats before the file are skipped.
    """
    with opened(path) as data:
        return _cue_sheet_block(data)


def _cue_sheet_block(data: FileBytes) -> bytes | None:
    at = after_id3(data)
    if data.read(at, 4) != b"fLaC":
        return None
    at += 4
    for _ in range(_MOST_BLOCKS):
        head = data.read(at, 4)
        if len(head) < 4:
            return None
        at, size = at + 4, int.from_bytes(head[1:], "big")
        if head[0] & ~_LAST == _CUESHEET:
            return data.read(at, size) if size <= _MOST_BYTES else None
        if head[0] & _LAST:
            return None
        at += size
    return None
