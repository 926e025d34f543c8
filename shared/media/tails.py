"""Tags of other formats before and behind the audio, which its readers do not expect."""

from __future__ import annotations

import re
from pathlib import Path

from shared.media.file_bytes import FileBytes, opened

_ID3V1_BYTES, _ENHANCED_BYTES = 128, 227
_ID3V2_HEAD_BYTES = 10
_APE_FOOTER_BYTES = 32
_APE_HAS_HEADER, _APE_IS_HEADER = 1 << 31, 1 << 29
# Before the end mark stands, in six digits, the size from the begin mark up to these digits.
_LYRICS_BEGIN, _LYRICS_END, _LYRICS_SIZE_BYTES = b"LYRICSBEGIN", b"LYRICS200", 6
# How far that size may be wrong.
_LYRICS_ERROR_BYTES = 64
# The first version has no size, but a longest text.
_OLD_LYRICS_END, _OLD_LYRICS_BYTES = b"LYRICSEND", 5100 + len(_LYRICS_BEGIN)
# A bound for files that have nothing but tags.
_MOST_TAGS = 8
# Some programs write zeros or a line's end between or behind tags.
_STRAY = re.compile(rb"[\0\r\n\t ]{1,128}\Z")
# Not found behind a tag by every ffmpeg, or its index names places that do not count the tag.
_UNEXPECTED = re.compile(rb"....ftyp|RIFF....WAVE", re.DOTALL)
# Found behind one tag, whose title it then has, but not behind two.
_BEHIND_ONE = b"fLaC"


def audio_start(path: Path) -> int:
    """Where an MP4 or WAV file begins behind an ID3v2 tag, in bytes; otherwise 0. Blocks.

    The same for a FLAC behind several. Other readers expect such a tag, and take the title from it.
    """
    with opened(path) as data:
        *tags, begin = _after_each_id3(data)
        head = data.read(begin, 12)
    several = len(tags) > 1 and head.startswith(_BEHIND_ONE)
    return begin if tags and (several or _UNEXPECTED.match(head)) else 0


def after_id3(data: FileBytes) -> int:
    """Where the ID3v2 tags at the beginning end."""
    return _after_each_id3(data)[-1]


def _after_each_id3(data: FileBytes) -> list[int]:
    """Where each ID3v2 tag at the beginning begins, and what follows them."""
    begins = [0]
    while len(begins) <= _MOST_TAGS:
        length = _id3_length(data.read(begins[-1], _ID3V2_HEAD_BYTES))
        if not length:
            break
        begins.append(begins[-1] + length)
    return begins


def tag_length(data: FileBytes, at: int) -> int:
    """The length of the tag that begins there, as between joined files; 0 if none does."""
    head = data.read(at, _APE_FOOTER_BYTES)
    if head.startswith(b"TAG"):
        return _ENHANCED_BYTES if head.startswith(b"TAG+") else _ID3V1_BYTES
    if head.startswith(b"APETAGEX"):
        is_header = int.from_bytes(head[20:24], "little") & _APE_IS_HEADER
        size = int.from_bytes(head[12:16], "little") if is_header else 0
        return _APE_FOOTER_BYTES + size
    return _id3_length(head[:_ID3V2_HEAD_BYTES])


def audio_end(path: Path) -> int | None:
    """Where the first of the tags at the end begins, in bytes; None where there are none. Blocks.

    By the tags' own length fields: ID3v1 and its extension, ID3v2 with a footer, APEv2 and Lyrics3,
    in any order.
    """
    with opened(path) as data:
        end = data.size
        for _ in range(_MOST_TAGS):
            begin = _tag_ending(data, end) or _tag_ending(data, _stray_before(data, end))
            if not begin:
                break
            end = begin
        return end if end < data.size else None


def _tag_ending(data: FileBytes, end: int) -> int:
    """Where the tag begins that ends there; 0 if none does, or nothing is before it."""
    length = _tag_before(data, end)
    return end - length if 0 < length < end else 0


def _stray_before(data: FileBytes, end: int) -> int:
    """Where the few bytes between two tags begin."""
    found = _STRAY.search(_read(data, end, _ID3V1_BYTES))
    return end - len(found[0]) if found else end


def _tag_before(data: FileBytes, end: int) -> int:
    """The length of the tag that ends there, 0 if none does."""
    tail = _read(data, end, _ID3V1_BYTES)
    if len(tail) == _ID3V1_BYTES and tail.startswith(b"TAG"):
        both = _read(data, end, _ID3V1_BYTES + _ENHANCED_BYTES)
        return len(both) if both.startswith(b"TAG+") else _ID3V1_BYTES
    if tail.endswith(_LYRICS_END):
        return _lyrics_before(data, end)
    if tail.endswith(_OLD_LYRICS_END):
        text = _read(data, end, _OLD_LYRICS_BYTES)
        found = text.rfind(_LYRICS_BEGIN)
        return 0 if found < 0 else len(text) - found
    if tail[-_ID3V2_HEAD_BYTES:].startswith(b"3DI"):
        return _id3_length(b"ID3" + tail[-_ID3V2_HEAD_BYTES + 3 :])
    footer = tail[-_APE_FOOTER_BYTES:]
    if footer.startswith(b"APETAGEX"):
        # Its size counts the footer, not the header.
        has_header = int.from_bytes(footer[20:24], "little") & _APE_HAS_HEADER
        return int.from_bytes(footer[12:16], "little") + (_APE_FOOTER_BYTES if has_header else 0)
    return 0


def _lyrics_before(data: FileBytes, end: int) -> int:
    closing = _LYRICS_SIZE_BYTES + len(_LYRICS_END)
    digits = _read(data, end, closing)[:_LYRICS_SIZE_BYTES]
    if not digits.isdigit():
        return 0
    text = _read(data, end, closing + int(digits) + _LYRICS_ERROR_BYTES)
    found = text.find(_LYRICS_BEGIN)
    return 0 if found < 0 else len(text) - found


def _id3_length(head: bytes) -> int:
    """The length of the ID3v2 tag that begins so, with its footer; 0 if none does."""
    if len(head) < _ID3V2_HEAD_BYTES or not head.startswith(b"ID3"):
        return 0
    size = sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    footer = _ID3V2_HEAD_BYTES if head[3] == 4 and head[5] & 0x10 else 0
    return _ID3V2_HEAD_BYTES + size + footer


def _read(data: FileBytes, end: int, size: int) -> bytes:
    """The last `size` bytes before `end`, or as many as there are."""
    start = max(0, end - size)
    return data.read(start, end - start)
