"""Tags behind the audio of FLAC and MP3 files, which their decoders do not expect."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_ID3V1_BYTES = 128
_APE_FOOTER_BYTES = 32
_APE_HAS_HEADER = 1 << 31
# Before the end mark stands, in six digits, the size from the begin mark up to these digits.
_LYRICS_BEGIN, _LYRICS_END, _LYRICS_SIZE_BYTES = b"LYRICSBEGIN", b"LYRICS200", 6
# How far that size may be wrong.
_LYRICS_ERROR_BYTES = 64
# A bound for files that have nothing but tags.
_MOST_TAGS = 8


def audio_end(path: Path) -> int | None:
    """Where the first of the tags at the end begins, in bytes; None where there are none. Blocks.

    By the tags' own length fields: ID3v1, APEv2 and Lyrics3v2, in any order.
    """
    with path.open("rb") as file:
        size = end = file.seek(0, 2)
        for _ in range(_MOST_TAGS):
            length = _tag_before(file, end)
            if not 0 < length < end:
                break
            end -= length
    return end if end < size else None


def _tag_before(file: BinaryIO, end: int) -> int:
    """The length of the tag that ends there, 0 if none does."""
    file.seek(max(0, end - _ID3V1_BYTES))
    tail = file.read(min(end, _ID3V1_BYTES))
    if len(tail) == _ID3V1_BYTES and tail.startswith(b"TAG"):
        return _ID3V1_BYTES
    if tail.endswith(_LYRICS_END):
        return _lyrics_before(file, end)
    footer = tail[-_APE_FOOTER_BYTES:]
    if footer.startswith(b"APETAGEX"):
        # Its size counts the footer, not the header.
        has_header = int.from_bytes(footer[20:24], "little") & _APE_HAS_HEADER
        return int.from_bytes(footer[12:16], "little") + (_APE_FOOTER_BYTES if has_header else 0)
    return 0


def _lyrics_before(file: BinaryIO, end: int) -> int:
    closing = _LYRICS_SIZE_BYTES + len(_LYRICS_END)
    file.seek(max(0, end - closing))
    digits = file.read(_LYRICS_SIZE_BYTES)
    if not digits.isdigit():
        return 0
    start = max(0, end - closing - int(digits) - _LYRICS_ERROR_BYTES)
    file.seek(start)
    found = file.read(end - start).find(_LYRICS_BEGIN)
    return 0 if found < 0 else end - start - found
