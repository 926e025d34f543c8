"""What is no damage although some program complains about it, and what is damage (section 2)."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

from tests.corpus import sounds, tags
from tests.corpus.case import Case
from tests.corpus.sounds import written

_MS = 6000
# Bytes that no decoder takes for a frame.
_JUNK = bytes(random.Random(3).choices(range(1, 250), k=700))


def _case(
    name: str, content: Callable[[], bytes], *, ms: int | None = _MS, verdict: str = "whole"
) -> Case:
    return Case(name=name, make=written(content), expected_ms=ms, verdict=verdict)


def _overwritten(audio: bytes, seed: int) -> bytes:
    """With 1 to 20 kB of noise somewhere behind the first fifth."""
    rng = random.Random(seed)
    size = min(rng.randint(1000, 20_000), len(audio) // 4)
    at = rng.randint(len(audio) // 5, len(audio) - size - 200)
    return audio[:at] + rng.randbytes(size) + audio[at + size :]


def _flipped(audio: bytes) -> bytes:
    """With one other bit in the middle."""
    middle = len(audio) // 2
    return audio[:middle] + bytes((audio[middle] ^ 0x10,)) + audio[middle + 1 :]


def _flac_with_block(kind: int, body: bytes) -> bytes:
    """A FLAC with one more metadata block behind STREAMINFO."""
    audio = sounds.flac()
    block = bytes((kind,)) + struct.pack(">I", len(body))[1:] + body
    # STREAMINFO, of 34 bytes, is not the last block of ffmpeg's files.
    return audio[:42] + block + audio[42:]


def _picture(*, size: int, mime: bytes = b"image/jpeg", picture: bytes = tags.JPEG) -> bytes:
    """A FLAC picture block whose length field says `size`."""
    text = struct.pack(">II", 3, len(mime)) + mime + struct.pack(">I", 0)
    return text + struct.pack(">IIIII", 500, 500, 24, 0, size) + picture


def _wav(riff: bytes, data: bytes, *, before: bytes = b"", behind: bytes = b"") -> bytes:
    """Samples behind headers with these two length fields."""
    audio = sounds.wav()
    at = audio.index(b"data")
    head, samples = audio[12:at], audio[at + 8 :]
    return b"RIFF" + riff + b"WAVE" + head + before + b"data" + data + samples + behind


_ONES, _ZERO = b"\xff" * 4, bytes(4)


def _riff_size(extra: int = 0) -> bytes:
    return struct.pack("<I", len(sounds.wav()) - 8 + extra)


def _data_size() -> bytes:
    audio = sounds.wav()
    at = audio.index(b"data")
    return audio[at + 4 : at + 8]


def _chunk(name: bytes, body: bytes, *, padded: bool) -> bytes:
    return name + struct.pack("<I", len(body)) + body + (b"\0" if padded and len(body) % 2 else b"")


def _ogg_pages(audio: bytes) -> list[bytes]:
    starts = []
    at = 0
    while at < len(audio):
        starts.append(at)
        segments = audio[at + 27 : at + 27 + audio[at + 26]]
        at += 27 + len(segments) + sum(segments)
    return [audio[a:b] for a, b in zip(starts, [*starts[1:], len(audio)], strict=True)]


def ogg_checksum(page: bytes) -> int:
    """RFC 3533: the polynomial 0x04c11db7 over the page with a checksum of zero."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x8000_0000 else 0)) & 0xFFFF_FFFF
    return value


def _without_last_flag(audio: bytes) -> bytes:
    *pages, last = _ogg_pages(audio)
    blank = last[:5] + bytes((last[5] & ~4,)) + last[6:22] + bytes(4) + last[26:]
    checked = blank[:22] + struct.pack("<I", ogg_checksum(blank)) + blank[26:]
    return b"".join((*pages, checked))


def _without_pages(audio: bytes, first: int, last: int) -> bytes:
    pages = _ogg_pages(audio)
    return b"".join(pages[:first] + pages[last:])


def _mp3_frames(audio: bytes) -> list[bytes]:
    """The frames of constant 128 kbit/s at 44.1 kHz."""
    frames = []
    at = 0
    while at + 4 <= len(audio):
        size = 417 + (audio[at + 2] >> 1 & 1)
        frames.append(audio[at : at + size])
        at += size
    return frames


def _with_xing(audio: bytes, *, frames: int | None = None, mark: bytes = b"Info") -> bytes:
    """The MP3 with another number of frames in its header."""
    at = audio.index(mark)
    return audio[: at + 8] + struct.pack(">I", frames or 0) + audio[at + 12 :]


_TEXT = b"\x01\xff\xfe"
_ID3: dict[str, bytes] = {
    "a genre that is empty UTF-16": tags.frame(b"TCON", b"\x01"),
    "an empty comment in UTF-16": tags.frame(b"COMM", b"\x01eng\xff\xfe\0\0"),
    "a comment of two bytes": tags.frame(b"COMM", b"\x01e"),
    "a title without a byte order mark": tags.frame(b"TIT2", b"\x01\x00A\x00B\x00"),
    "a byte of UTF-16 too many": tags.frame(b"TIT2", _TEXT + b"A\0B"),
    "a frame beyond the tag": tags.frame(b"TIT2", b"\0ab")[:4] + b"\x7f\xff\xff\xff\0\0\0ab",
    "lyrics that end early": tags.frame(b"USLT", b"\x01eng"),
    "an empty cover": tags.frame(b"APIC", b"\0image/jpeg\0\3\0"),
    "a cover of an unknown kind": tags.frame(b"APIC", b"\0image/x-none\0\3\0" + tags.JPEG),
    "a cover that is a link": tags.frame(b"APIC", b"\0-->\0\3\0http://invalid.example/a.jpg"),
    "a cover of noise": tags.frame(b"APIC", b"\0image/png\0\3\0" + _JUNK),
    "a compressed frame that is none": tags.frame(b"TIT2", _JUNK[:60], flags=b"\0\x80"),
    "a chapter that is cut": tags.frame(b"CHAP", b"c1\0\0\0"),
    "a chapter that ends before it begins": tags.frame(
        b"CHAP", b"c1\0" + struct.pack(">IIII", 5000, 1000, 0xFFFF_FFFF, 0xFFFF_FFFF)
    ),
    "private data that ends early": tags.frame(b"PRIV", b"\x01"),
}

_TAILS: dict[str, bytes] = {
    "one newline": b"\n",
    "a carriage return and a newline": b"\r\n",
    "three zeros": bytes(3),
    "100 kB of zeros": bytes(100_000),
    "an ID3v1 tag": tags.ID3V1,
    "two ID3v1 tags": tags.ID3V1 * 2,
    "an enhanced ID3v1 tag": tags.ENHANCED + tags.ID3V1,
    "an APEv2 tag with a cover": tags.APE_COVER,
    "an APEv2 tag with a cover and ID3v1": tags.APE_COVER + tags.ID3V1,
    "an APEv2 tag without a header": tags.ape((b"Title", b"x" * 900), header=False),
    "Lyrics3v2 and ID3v1": tags.LYRICS2 + tags.ID3V1,
    "Lyrics3v1 and ID3v1": tags.LYRICS1 + tags.ID3V1,
    "an ID3v2 tag with a footer": tags.id3v2_with_footer(
        tags.frame(b"TIT2", b"\0Title" + bytes(600))
    ),
    "an ID3v2 tag without a footer": tags.id3v2(tags.frame(b"TIT2", b"\0Title"), padding=600),
    "an ID3v1 tag and a newline": tags.ID3V1 + b"\n",
    "an APEv2 tag, zeros and ID3v1": tags.APE_COVER + bytes(32) + tags.ID3V1,
}


def _tailed(audio: Callable[[], bytes], tail: bytes) -> Callable[[], bytes]:
    return lambda: audio() + tail


_NO_DAMAGE: Sequence[Case] = [
    *(
        _case(f"MP3, ID3v2: {what}", lambda f=frame: tags.id3v2(f, padding=64) + sounds.mp3())
        for what, frame in _ID3.items()
    ),
    *(_case(f"MP3 and {what}", _tailed(sounds.mp3, tail)) for what, tail in _TAILS.items()),
    *(
        _case(f"MP3 without a header and {what}", _tailed(lambda: sounds.mp3(header=False), tail))
        for what, tail in _TAILS.items()
    ),
    *(_case(f"FLAC and {what}", _tailed(sounds.flac, tail)) for what, tail in _TAILS.items()),
    *(
        _case(f"{name} and {what}", _tailed(audio, _TAILS[what]))
        for name, audio in (
            ("raw AAC", sounds.adts),
            ("Vorbis", sounds.vorbis),
            ("Opus", sounds.opus),
            ("AAC in MP4", sounds.aac),
            ("ALAC", sounds.alac),
            ("WAV", sounds.wav),
            ("WMA", sounds.wma),
        )
        for what in ("one newline", "an ID3v1 tag", "an APEv2 tag with a cover", "100 kB of zeros")
    ),
    *(
        _case(
            f"ID3v2 before {name}",
            lambda a=audio: tags.id3v2(tags.frame(b"TIT2", b"\0Title"), padding=900) + a(),
        )
        for name, audio in (
            ("FLAC", sounds.flac),
            ("AAC in MP4", sounds.aac),
            ("ALAC in MP4", sounds.alac),
            ("raw AAC", sounds.adts),
            ("WAV", sounds.wav),
            ("Vorbis", sounds.vorbis),
            ("Opus", sounds.opus),
        )
    ),
    _case("FLAC, a picture longer than its block", lambda: _flac_with_block(6, _picture(size=99_999_999))),
    _case("FLAC, an empty picture", lambda: _flac_with_block(6, _picture(size=0, picture=b""))),
    _case("FLAC, a picture of noise", lambda: _flac_with_block(6, _picture(size=700, picture=_JUNK))),
    _case("FLAC, a picture of an unknown kind", lambda: _flac_with_block(6, _picture(size=700, mime=b"x", picture=_JUNK))),
    _case("FLAC, comments that end early", lambda: _flac_with_block(4, b"\xff\xff\0\0abc")),
    _case("FLAC, a CUESHEET block of noise", lambda: _flac_with_block(5, _JUNK)),
    _case("FLAC, an unknown block", lambda: _flac_with_block(100, _JUNK)),
    _case("FLAC of 32 bits", lambda: sounds.sound("-c:a", "flac", "-sample_fmt", "s32", "-bits_per_raw_sample", "32", "-strict", "experimental", "-f", "flac")),
    _case("FLAC of 24 bits", lambda: sounds.sound("-c:a", "flac", "-sample_fmt", "s32", "-f", "flac")),
    _case("MP3, 6 s stereo then 6 s mono", lambda: sounds.mp3(header=False) + sounds.mp3(header=False, channels=1), ms=12_000),
    _case("MP3, 6 s of 44.1 kHz then 6 s of 48 kHz", lambda: sounds.mp3(header=False) + sounds.sound("-c:a", "libmp3lame", "-b:a", "128k", "-write_xing", "0", "-id3v2_version", "0", "-f", "mp3", rate_hz=48_000), ms=12_000),
    _case("MP3, half of its last frame", lambda: sounds.mp3()[:-200]),
    _case("MP3 without a header, half of its last frame", lambda: sounds.mp3(header=False)[:-200]),
    _case("WAV out of a pipe, sizes of all ones", lambda: _wav(_ONES, _ONES)),
    _case("WAV out of a pipe, sizes of 0", lambda: _wav(_ZERO, _ZERO)),
    _case("WAV, RIFF size 0", lambda: _wav(_ZERO, _data_size())),
    _case("WAV, sizes of all ones, an odd number of bytes", lambda: _wav(_ONES, _ONES, behind=b"\0")),
    _case("WAV, an odd chunk with its pad byte", lambda: _wav(_riff_size(8 + 8), _data_size(), before=_chunk(b"LIST", b"INFOabc", padded=True))),
    _case("WAV, an odd chunk without its pad byte", lambda: _wav(_riff_size(8 + 7), _data_size(), before=_chunk(b"LIST", b"INFOabc", padded=False))),
    _case("WAV, a chunk behind the samples", lambda: _wav(_riff_size(8 + 8), _data_size(), behind=_chunk(b"LIST", b"INFOabc", padded=True))),
    _case("WAV, an ID3 chunk that is cut", lambda: _wav(_riff_size(8 + 700), _data_size(), behind=_chunk(b"id3 ", _JUNK, padded=True)[:100])),
    *(_case(f"{name} without its last flag", lambda a=audio: _without_last_flag(a())) for name, audio in (("Vorbis", sounds.vorbis), ("Opus", sounds.opus))),
]

_DAMAGE: Sequence[Case] = [
    _case("Vorbis, a page lost", lambda: _without_pages(sounds.vorbis(), 5, 6), verdict="truncated"),
]

CASES: Sequence[Case] = [*_NO_DAMAGE, *_DAMAGE]
