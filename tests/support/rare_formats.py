"""Files of formats that no ffmpeg writes, made byte by byte."""

from __future__ import annotations

import base64
import random
import struct
import zlib
from collections.abc import Iterator

# Eight samples of DSD whose mean is zero.
_DSD_SILENCE = b"\x69"
_DSD_BLOCK_BYTES = 4096
_MUSEPACK = (
    "TVBDS1NIDjD2Z/EIiuIQABsbUkcMAQAAAAAAAAAARUkHoAEeAVNPCCcAAAAAQVAMD//////////gQVAMD//////////gQVAH"
    "D///+FNUBwIS1FBTRQM="
)


def dsf(seconds: float, *, rate_hz: int = 2_822_400, channels: int = 2) -> bytes:
    """A DSF file of silence, as Sony's players have it."""
    samples = int(rate_hz * seconds)
    blocks = -(-samples // 8 // _DSD_BLOCK_BYTES)
    data = _DSD_SILENCE * (_DSD_BLOCK_BYTES * channels * blocks)
    form = struct.pack("<4sQII", b"fmt ", 52, 1, 0)
    form += struct.pack("<IIIIQII", 2, channels, rate_hz, 1, samples, _DSD_BLOCK_BYTES, 0)
    body = struct.pack("<4sQ", b"data", 12 + len(data)) + data
    return struct.pack("<4sQQQ", b"DSD ", 28, 28 + len(form) + len(body), 0) + form + body


def dsdiff(seconds: float, *, rate_hz: int = 2_822_400) -> bytes:
    """A stereo DSDIFF file (.dff) of silence."""
    properties = b"SND " + _chunk(b"FS  ", struct.pack(">I", rate_hz))
    properties += _chunk(b"CHNL", struct.pack(">H", 2) + b"SLFTSRGT")
    properties += _chunk(b"CMPR", b"DSD \x0enot compressed\0")
    data = _DSD_SILENCE * (int(rate_hz * seconds) // 8 * 2)
    parts = ((b"FVER", b"\x01\x05\0\0"), (b"PROP", properties), (b"DSD ", data))
    return _chunk(b"FRM8", b"DSD " + b"".join(_chunk(kind, body) for kind, body in parts))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">Q", len(body)) + body + bytes(len(body) % 2)


def ape(seconds: float, *, rate_hz: int = 44_100) -> bytes:
    """A stereo Monkey's Audio file of silence, with a cover in its tag."""
    per_frame = 73_728 * 4
    total = int(rate_hz * seconds)
    sizes = [min(per_frame, total - at) for at in range(0, total, per_frame)]
    # A checksum of the samples, whose highest bit says that flags follow: both channels are silent.
    frames = [
        struct.pack("<II", zlib.crc32(bytes(4 * size)) >> 1 | 1 << 31, 3) + bytes(8)
        for size in sizes
    ]
    table_bytes = 4 * len(frames)
    first = 52 + 24 + table_bytes
    table = struct.pack(f"<{len(frames)}I", *range(first, first + 16 * len(frames), 16))
    head = struct.pack("<4sHHIII", b"MAC ", 3990, 0, 52, 24, table_bytes)
    head += struct.pack("<IIII16s", 0, 16 * len(frames), 0, 0, bytes(16))
    head += struct.pack("<HHIIIHHI", 1000, 0, per_frame, sizes[-1], len(sizes), 16, 2, rate_hz)
    return head + table + b"".join(frames) + _ape_tag()


def musepack() -> bytes:
    """Four seconds of silence in stereo, as mpcenc writes them, with a cover in the tag."""
    return base64.b64decode(_MUSEPACK) + _ape_tag()


def _ape_tag() -> bytes:
    cover = b"Cover Art (Front)\0c.png\0" + random.Random(1).randbytes(20_000)
    item = struct.pack("<II", len(cover) - 18, 2) + cover
    ends = [
        b"APETAGEX" + struct.pack("<IIII", 2000, len(item) + 32, 1, flags) + bytes(8)
        for flags in (0xA0000000, 0x80000000)
    ]
    return ends[0] + item + ends[1]


def shorten(seconds: float, *, rate_hz: int = 44_100) -> bytes:
    """A stereo Shorten file of quiet noise, as concerts were traded."""
    total, block = int(rate_hz * seconds), 256
    wave = b"RIFF" + struct.pack("<I", 36 + 4 * total) + b"WAVEfmt "
    wave += struct.pack("<IHHIIHH", 16, 1, 2, rate_hz, 4 * rate_hz, 4, 16)
    wave += b"data" + struct.pack("<I", 4 * total)
    bits: list[str] = [_number(value) for value in (5, 2, block, 0, 0, 0)]
    bits += [_rice(9, 2), _rice(len(wave), 5), *(_rice(byte, 8) for byte in wave)]
    chance = random.Random(3)
    sounds = [_rice(value, 4) for value in range(36)]
    for at in range(0, total, block):
        size = min(block, total - at)
        if size < block:
            bits += [_rice(5, 2), _number(size)]
        for _ in range(2):
            bits += [_rice(0, 2), _rice(3, 3), *chance.choices(sounds, k=size)]
    return b"ajkg\x02" + bytes(_bytes("".join([*bits, _rice(4, 2)])))


def _rice(value: int, width: int) -> str:
    return "0" * (value >> width) + "1" + format(value & (1 << width) - 1, f"0{width}b")[:width]


def _number(value: int) -> str:
    """A number behind its own width."""
    width = max(value.bit_length() - 1, 0)
    return _rice(width, 2) + (_rice(value, width) if width else "0" * value + "1")


def _bytes(bits: str) -> Iterator[int]:
    bits += "0" * (-len(bits) % 8)
    return (int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
