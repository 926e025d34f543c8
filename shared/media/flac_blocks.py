"""The metadata blocks of a FLAC file that ffprobe does not report."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_CUESHEET, _LAST = 5, 0x80
# The largest CUESHEET block: 100 tracks with 100 index points each.
_MOST_BYTES = 256 * 1024
# Files have about five: more are no music.
_MOST_BLOCKS = 128


def cue_sheet_block(path: Path) -> bytes | None:
    """The content of the CUESHEET block; None where there is none. Blocks.

    Tags of other formats before the file are skipped.
    """
    with path.open("rb") as file:
        return _cue_sheet_block(file)


def _cue_sheet_block(file: BinaryIO) -> bytes | None:
    if not _after_id3(file):
        return None
    for _ in range(_MOST_BLOCKS):
        head = file.read(4)
        if len(head) < 4:
            return None
        size = int.from_bytes(head[1:], "big")
        if head[0] & ~_LAST == _CUESHEET:
            return file.read(size) if size <= _MOST_BYTES else None
        if head[0] & _LAST:
            return None
        file.seek(size, 1)
    return None


def _after_id3(file: BinaryIO) -> bool:
    """Whether it is a FLAC file, also behind an ID3v2 tag; its first block is read next."""
    head = file.read(10)
    start = 4
    if head[:3] == b"ID3" and len(head) == 10:
        size = sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        file.seek(10 + size)
        head = file.read(4)
        start += 10 + size
    file.seek(start)
    return head[:4] == b"fLaC"
