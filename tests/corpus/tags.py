"""Tags before and behind the audio, byte by byte."""

from __future__ import annotations

import struct

ID3V1 = b"TAG" + b"Title".ljust(125, b"\0")
# Written before an ID3v1 tag, for longer titles.
ENHANCED = b"TAG+" + b"A long title".ljust(223, b"\0")
LYRICS2 = b"LYRICSBEGIN" + b"IND0000200" + b"LYR00012hello world!" + b"000041LYRICS200"
LYRICS1 = b"LYRICSBEGIN" + b"hello world!" * 9 + b"LYRICSEND"
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 40


def syncsafe(size: int) -> bytes:
    """Four times seven bits."""
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def id3v2(*frames: bytes, padding: int = 0, version: int = 3) -> bytes:
    """The tag in front of a file."""
    body = b"".join(frames) + bytes(padding)
    return b"ID3" + bytes((version, 0, 0)) + syncsafe(len(body)) + body


def frame(name: bytes, body: bytes, *, flags: bytes = b"\0\0") -> bytes:
    """A frame of ID3v2.3."""
    return name + struct.pack(">I", len(body)) + flags + body


def id3v2_with_footer(*frames: bytes) -> bytes:
    """The tag at the end of a file (version 2.4): its footer repeats the header."""
    body = b"".join(frames)
    rest = b"\x04\0\x10" + syncsafe(len(body))
    return b"ID3" + rest + body + b"3DI" + rest


def ape(*items: tuple[bytes, bytes], header: bool = True) -> bytes:
    """An APEv2 tag; binary items, as covers are."""
    body = b"".join(struct.pack("<II", len(v), 2) + name + b"\0" + v for name, v in items)
    size, flags = len(body) + 32, 0x8000_0000 if header else 0
    block = struct.Struct("<8sIIII8x")
    front = block.pack(b"APETAGEX", 2000, size, len(items), flags | 0x2000_0000)
    back = block.pack(b"APETAGEX", 2000, size, len(items), flags)
    return (front if header else b"") + body + back


APE_COVER = ape((b"Cover Art (Front)", b"cover.jpg\0" + JPEG * 8))
