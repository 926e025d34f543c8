"""Whether an Ogg file has its end.

Ogg stores no length: a file without its end announces, and decodes to, the length of the rest. But
all common encoders mark the last page of a stream (RFC 3533, section 6, "end of stream"). An
incomplete download lacks at least the page with that mark.
"""

from __future__ import annotations

from pathlib import Path

_CAPTURE = b"OggS"
_HEADER_BYTES = 27
_END_OF_STREAM = 0x04
# The largest page twice, so that one whole page is in it, and a tag that may follow.
_TAIL_BYTES = 2 * (_HEADER_BYTES + 255 + 255 * 255) + 4096


def ends_with_its_last_page(path: Path) -> bool:
    """True if the last whole page of the file is marked as the end of its stream. Blocks."""
    with path.open("rb") as file:
        size_bytes = file.seek(0, 2)
        file.seek(max(0, size_bytes - _TAIL_BYTES))
        tail = file.read(_TAIL_BYTES)
    at = tail.rfind(_CAPTURE)
    while at >= 0:
        if _whole_page(tail, at):
            return bool(tail[at + 5] & _END_OF_STREAM)
        at = tail.rfind(_CAPTURE, 0, at)
    return False


def _whole_page(tail: bytes, at: int) -> bool:
    """Whether a page begins at `at` and has all of its body."""
    header = tail[at : at + _HEADER_BYTES]
    if len(header) < _HEADER_BYTES or header[4] != 0 or header[5] > 7:
        return False
    segments = tail[at + _HEADER_BYTES : at + _HEADER_BYTES + header[26]]
    body = at + _HEADER_BYTES + header[26]
    return len(segments) == header[26] and body + sum(segments) <= len(tail)
