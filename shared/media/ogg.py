"""Whether an Ogg file has its end.

Ogg stores no length: a file without its end announces, and decodes to, the length of the rest. But
all common encoders mark the last page of a stream (RFC 3533, section 6, "end of stream"). An
incomplete download lacks at least the page with that mark, and ends within a page.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

_CAPTURE = b"OggS"
_HEADER_BYTES = 27
_END_OF_STREAM = 0x04
# Of the last segment of a page: its packet has more on the next page.
_CONTINUES = 255


@dataclass(frozen=True, kw_only=True)
class LastPage:
    """The last whole page of a file.

    `end`: where it ends, in bytes. `marked`: as the end of its stream. `complete`: its last packet
    ends on it, and no part of a page follows.
    """

    end: int
    marked: bool
    complete: bool


def last_page(path: Path) -> LastPage | None:
    """The last page of the file that is whole; None where there is none. Blocks."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.rfind(_CAPTURE)
        part_follows = False
        while at >= 0:
            end = _end_of_page(data, at)
            if end is not None:
                return LastPage(
                    end=end,
                    marked=bool(data[at + 5] & _END_OF_STREAM),
                    complete=not part_follows and data[at + 26 + data[at + 26]] != _CONTINUES,
                )
            part_follows = True
            at = data.rfind(_CAPTURE, 0, at)
    return None


def _end_of_page(data: mmap.mmap, at: int) -> int | None:
    """Where the page ends that begins at `at`; None: it is none, or has not all of its body."""
    header = data[at : at + _HEADER_BYTES]
    if len(header) < _HEADER_BYTES or header[4] != 0 or header[5] > 7:
        return None
    segments = data[at + _HEADER_BYTES : at + _HEADER_BYTES + header[26]]
    body = at + _HEADER_BYTES + header[26]
    end = body + sum(segments)
    return end if len(segments) == header[26] and end <= len(data) else None
