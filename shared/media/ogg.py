"""Whether the pages of an Ogg file are all there.

Ogg stores no length: a file without its end announces, and decodes to, the length of the rest. But
all common encoders mark the last page of a stream (RFC 3533, section 6, "end of stream"). An
incomplete download lacks at least the page with that mark, and ends within a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from shared.media.file_bytes import FileBytes, opened

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


class _Page(NamedTuple):
    """Its flags, where it ends, and whether its last packet does not end on it."""

    flags: int
    end: int
    continues: bool


def pages_of(path: Path) -> Pages | None:
    """The pages of the file; None where there is none. Blocks."""
    with opened(path) as data:
        last: _Page | None = None
        broken, chained, tried = False, False, 0
        at = data.find(_CAPTURE, 0)
        while at >= 0 and tried < _MOST_TRIED:
            page = _page(data, at)
            if page is None:
                tried += 1
                at = data.find(_CAPTURE, at + 1)
                continue
            if last is not None:
                broken |= at != last.end
                # Streams that are multiplexed begin together.
                chained |= page.flags & _BEGIN_OF_STREAM > last.flags & _BEGIN_OF_STREAM
            last = page
            at = data.find(_CAPTURE, page.end)
        if last is None:
            return None
        return Pages(
            end=last.end,
            marked=bool(last.flags & _END_OF_STREAM),
            complete=not last.continues and data.find(_CAPTURE, last.end) < 0,
            broken=broken,
            chained=chained,
        )


def _page(data: FileBytes, at: int) -> _Page | None:
    """The page that begins there; None: it is none, or has not all of its body."""
    header = data.read(at, _HEADER_BYTES)
    if len(header) < _HEADER_BYTES or header[4] != 0 or header[5] > 7:
        return None
    count = header[26]
    segments = data.read(at + _HEADER_BYTES, count)
    end = at + _HEADER_BYTES + count + sum(segments)
    if len(segments) < count or end > data.size:
        return None
    return _Page(header[5], end, continues=segments[-1:] == bytes([_CONTINUES]))
