"""The frames of an MP3 or raw AAC file, which have no other index: how many, and where they end.

Each frame begins with a header that says how long it is. What follows the last whole frame is not
decoded: a tag, stray bytes, or a part of a frame, which shows that the file was cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from shared.media.file_bytes import FileBytes, opened
from shared.media.tails import after_id3, tag_length

# Of AAC; an MP3's has four.
_HEADER_BYTES = 7
_VERSION_1, _LAYER_3 = 3, 1
_KBPS = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
_MP3_HZ = (44_100, 48_000, 32_000)
_AAC_HZ = (
    *(96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000),
    *(22_050, 16_000, 12_000, 11_025, 8_000, 7_350),
)
# After what is no frame, so many in a row are audio again: two may be there by chance.
_CHAIN = 3
# Bytes that may begin a frame but do not: files with more are no music, and searching them is slow.
_MOST_TRIED = 100_000
# A day of music. Reading the shortest frames of a large file that has nothing else takes minutes.
_MOST_FRAMES = 4_000_000
# Behind the last frame: so many bytes of any kind, and so many zeros, are no lost audio.
_STRAY_BYTES = 16
_PADDING_BYTES = 4096
# Where the first frame has its counts: behind its header and at most 32 bytes of side information.
_COUNTS = slice(4, 64)


class Frame(NamedTuple):
    """Its length in bytes, and how many samples a channel it gives at which rate."""

    size: int
    samples: int
    rate_hz: int


@dataclass(frozen=True, kw_only=True)
class Frames:
    """The whole frames of a file, from the first to `end`, in bytes.

    `counted_s` is the length that the header in the first frame counts, None where there is none.
    `cut`: a part of a frame follows, or something else that is neither a tag nor padding. `broken`:
    bytes between frames are neither a frame nor a tag.
    """

    seconds: float
    end: int
    cut: bool
    counted_s: float | None
    broken: bool = False


_Reader = Callable[[bytes], Frame | None]


def frames_of(path: Path, container: str, end: int | None) -> Frames | None:
    """The frames before `end`, by default the file's; None where they cannot be told. Blocks.

    `container`: "mp3" or "adts".
    """
    with opened(path) as data:
        return _Walk(data, _mp3 if container == "mp3" else _adts, end or data.size).run(container)


class _Walk:
    def __init__(self, data: FileBytes, reader: _Reader, end: int) -> None:
        self._data, self._reader, self._until = data, reader, end
        self._tried = 0

    def run(self, container: str) -> Frames | None:
        found: Counter[tuple[int, int]] = Counter()
        first = at = self._next(after_id3(self._data))
        end, broken, read = 0, False, 0
        while at is not None and read <= _MOST_FRAMES:
            read += 1
            frame = self._whole(at)
            if frame is not None:
                found[frame.samples, frame.rate_hz] += 1
                at = end = at + frame.size
            elif tag := tag_length(self._data, at):
                at += tag
            elif (at := self._next(at)) is not None:
                broken = True
        if first is None or self._tried > _MOST_TRIED or read > _MOST_FRAMES:
            return None
        return replace(self._summed(found, first, end, container), broken=broken)

    def _summed(
        self, found: Counter[tuple[int, int]], first: int, end: int, container: str
    ) -> Frames:
        counted_s, counting = None, False
        head = self._reader(self._data.read(first, _HEADER_BYTES))
        assert head is not None
        if container == "mp3":
            counting, count = _counted(self._data.read(first, head.size))
            counted_s = count * head.samples / head.rate_hz if count else None
        seconds = sum(count * samples / rate for (samples, rate), count in found.items())
        return Frames(
            seconds=seconds - (head.samples / head.rate_hz if counting else 0),
            end=end,
            cut=self._is_cut(end),
            counted_s=counted_s,
        )

    def _whole(self, at: int) -> Frame | None:
        head = self._data.read(at, _HEADER_BYTES)
        if len(head) < _HEADER_BYTES or at + _HEADER_BYTES > self._until:
            return None
        frame = self._reader(head)
        return frame if frame is not None and at + frame.size <= self._until else None

    def _next(self, at: int) -> int | None:
        """Where frames begin again; None: nowhere."""
        at = self._data.find(b"\xff", at, self._until)
        while at >= 0 and self._tried <= _MOST_TRIED:
            self._tried += 1
            if self._chain(at):
                return at
            at = self._data.find(b"\xff", at + 1, self._until)
        return None

    def _chain(self, at: int) -> bool:
        rate_hz = None
        for _ in range(_CHAIN):
            frame = self._whole(at)
            if frame is None or rate_hz not in (None, frame.rate_hz):
                return False
            rate_hz = frame.rate_hz
            at += frame.size
        return True

    def _is_cut(self, end: int) -> bool:
        tail = self._data.read(end, min(self._until - end, _PADDING_BYTES + 1))
        if len(tail) <= _STRAY_BYTES:
            return tail.startswith(b"\xff")
        return len(tail) > _PADDING_BYTES or tail.count(0) != len(tail)


def _counted(frame: bytes) -> tuple[bool, int | None]:
    """Whether an MP3's first frame is a header and no audio, and how many frames it counts."""
    for mark in (b"Xing", b"Info"):
        at = frame.find(mark, _COUNTS.start, _COUNTS.stop)
        if at >= 0:
            has_count = len(frame) >= at + 12 and frame[at + 7] & 1
            return True, int.from_bytes(frame[at + 8 : at + 12], "big") if has_count else None
    at = frame.find(b"VBRI", _COUNTS.start, _COUNTS.stop)
    if at >= 0:
        return True, int.from_bytes(frame[at + 14 : at + 18], "big")
    return False, None


def _mp3(head: bytes) -> Frame | None:
    return _mp3_frame(head[1], head[2]) if head[0] == 0xFF else None


@cache
def _mp3_frame(second: int, third: int) -> Frame | None:
    """By these bytes of its header; None: it is none, or of a free bit rate."""
    version, layer = second >> 3 & 3, second >> 1 & 3
    rate, kbps = third >> 2 & 3, third >> 4
    if second & 0xE0 != 0xE0 or version == 1 or layer != _LAYER_3 or rate == 3 or kbps in (0, 15):
        return None
    first = version == _VERSION_1
    rate_hz = _MP3_HZ[rate] >> (0 if first else 1 if version == 2 else 2)
    samples = 1152 if first else 576
    size = samples // 8 * _KBPS[first][kbps] * 1000 // rate_hz + (third >> 1 & 1)
    return Frame(size, samples, rate_hz)


def _adts(head: bytes) -> Frame | None:
    if head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return None
    rate = head[2] >> 2 & 15
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    if rate >= len(_AAC_HZ) or size < _HEADER_BYTES:
        return None
    return Frame(size, 1024 * ((head[6] & 3) + 1), _AAC_HZ[rate])
