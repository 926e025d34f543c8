"""Whether the pages of an Ogg file are all there.

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
_BEGIN_OF_STREAM, _END_OF_STREAM = 0x02, 0x04
# Of the last segment of a page: its packet has more on the next page.
_CONTINUES = 255
# Bytes that may begin a page but do not: files with more are no music.
_MOST_TRIED = 100_000


@dataclass(frozen=True, kw_only=True)
class Pages:
    """The whole pages of a file.

    `end`: where the last one ends, in bytes. `marked`: it is the end of its stream. `complete`: its
    last packet ends on it, and no part of a page follows. `broken`: bytes between pages are none.
    `chained`: another stream follows the first one, as in joined files.
    """

    end: int
    marked: bool
    complete: bool
    broken: bool
    chained: bool


def pages_of(path: Path) -> Pages | None:
    """The pages of the file; None where there is none. Blocks."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        last: int | None = None
        end, broken, chained, tried = 0, False, False, 0
        at = data.find(_CAPTURE)
        while at >= 0 and tried < _MOST_TRIED:
            page_end = _end_of_page(data, at)
            if page_end is None:
                tried += 1
                at = data.find(_CAPTURE, at + 1)
                continue
            broken |= last is not None and at != end
            # Streams that are multiplexed begin together.
            begins = data[at + 5] & _BEGIN_OF_STREAM
            chained |= last is not None and begins > data[last + 5] & _BEGIN_OF_STREAM
            last, end = at, page_end
            at = data.find(_CAPTURE, end)
        if last is None:
            return None
        whole = data[last + 26 + data[last + 26]] != _CONTINUES
        return Pages(
            end=end,
            marked=bool(data[last + 5] & _END_OF_STREAM),
            complete=whole and data.find(_CAPTURE, end) < 0,
            broken=broken,
            chained=chained,
        )


def _end_of_page(data: mmap.mmap, at: int) -> int | None:
    """Where the page ends that begins at `at`; None: it is none, or has not all of its body."""
    header = data[at : at + _HEADER_BYTES]
    if len(header) < _HEADER_BYTES or header[4] != 0 or header[5] > 7:
        return None
    segments = data[at + _HEADER_BYTES : at + _HEADER_BYTES + header[26]]
    end = at + _HEADER_BYTES + header[26] + sum(segments)
    return end if len(segments) == header[26] and end <= len(data) else None
