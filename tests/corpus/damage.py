"""What is no damage although some program complains about it, and what is damage (section 2)."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from functools import partial

from tests.corpus import sounds, tags
from tests.corpus.case import Case
from tests.corpus.sounds import written

_MS = 6000
_ERRORS = "decode_errors"
# Bytes that no decoder takes for a frame.
_JUNK = bytes(random.Random(3).choices(range(1, 250), k=700))


_FLAC_32_BITS = (
    *("-c:a", "flac", "-sample_fmt", "s32", "-bits_per_raw_sample", "32"),
    *("-strict", "experimental", "-f", "flac"),
)


def _case(
    name: str,
    content: Callable[[], bytes],
    *,
    ms: int | None = _MS,
    verdict: str = "whole",
    since: tuple[int, int] = (5, 1),
) -> Case:
    return Case(name=name, make=written(content), expected_ms=ms, verdict=verdict, since=since)


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


def _data_size(extra: int = 0) -> bytes:
    audio = sounds.wav()
    return struct.pack("<I", len(audio) - audio.index(b"data") - 8 + extra)


_ODD_CHUNK = b"LIST" + struct.pack("<I", 7) + b"INFOabc"
_CUT_CHUNK = b"id3 " + struct.pack("<I", 700) + _JUNK[:100]


def ogg_pages(audio: bytes) -> list[bytes]:
    """The pages of an Ogg file."""
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


def checked_page(page: bytes) -> bytes:
    """The page with the checksum of what it holds."""
    blank = page[:22] + bytes(4) + page[26:]
    return blank[:22] + struct.pack("<I", ogg_checksum(blank)) + blank[26:]


def _without_last_flag(audio: bytes) -> bytes:
    *pages, last = ogg_pages(audio)
    return b"".join((*pages, checked_page(last[:5] + bytes((last[5] & ~4,)) + last[6:])))


def _without_pages(audio: bytes, first: int, last: int | None) -> bytes:
    pages = ogg_pages(audio)
    del pages[first:last]
    return b"".join(pages)


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


_ID3_TAG = tags.id3v2(tags.frame(b"TIT2", b"\0Title"), padding=900)


def _behind_id3(audio: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: _ID3_TAG + audio()


def _behind_frame(frame: bytes) -> Callable[[], bytes]:
    return lambda: tags.id3v2(frame, padding=64) + sounds.mp3()


def _broken(audio: Callable[[], bytes], seed: int) -> Callable[[], bytes]:
    return lambda: _overwritten(audio(), seed)


def _half(audio: Callable[[], bytes]) -> bytes:
    whole = audio()
    return whole[: len(whole) // 2]


def _unmarked(audio: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: _without_last_flag(audio())


def _headerless() -> bytes:
    return sounds.mp3(header=False)


_OTHERS: dict[str, Callable[[], bytes]] = {
    "raw AAC": sounds.adts,
    "Vorbis": sounds.vorbis,
    "Opus": sounds.opus,
    "AAC in MP4": sounds.aac,
    "WAV": sounds.wav,
}
_BLOCKS: dict[str, tuple[int, bytes]] = {
    "a picture longer than its block": (6, _picture(size=99_999_999)),
    "an empty picture": (6, _picture(size=0, picture=b"")),
    "a picture of noise": (6, _picture(size=700, picture=_JUNK)),
    "a picture of an unknown kind": (6, _picture(size=700, mime=b"x", picture=_JUNK)),
    "comments that end early": (4, b"\xff\xff\0\0abc"),
    "an unknown block": (100, _JUNK),
}
# All of them behind the two formats that such tags are written to; behind others a few.
_TAILED: Sequence[tuple[str, str, Callable[[], bytes]]] = (
    *((name, "MP3", sounds.mp3) for name in _TAILS),
    *((name, "FLAC", sounds.flac) for name in _TAILS),
    *((name, "MP3 without a header", _headerless) for name in ("one newline", *list(_TAILS)[7:13])),
    *(
        (name, *other)
        for other in _OTHERS.items()
        for name in ("one newline", "an APEv2 tag with a cover", "100 kB of zeros")
    ),
)

_NO_DAMAGE: Sequence[Case] = [
    *(_case(f"MP3, ID3v2: {what}", _behind_frame(frame)) for what, frame in _ID3.items()),
    *(_case(f"{name} and {what}", _tailed(audio, _TAILS[what])) for what, name, audio in _TAILED),
    *(
        _case(f"ID3v2 before {name}", _behind_id3(audio))
        for name, audio in ({"FLAC": sounds.flac, "ALAC in MP4": sounds.alac} | _OTHERS).items()
    ),
    *(_case(f"FLAC, {what}", partial(_flac_with_block, *block)) for what, block in _BLOCKS.items()),
    _case("two ID3v2 tags before FLAC", lambda: _ID3_TAG * 2 + sounds.flac()),
    _case("FLAC of 32 bits", lambda: sounds.sound(*_FLAC_32_BITS), since=(6, 1)),
    _case("FLAC of 24 bits", lambda: sounds.flac(bits=24)),
    _case(
        "MP3, 6 s stereo then 6 s mono",
        lambda: _headerless() + sounds.mp3(header=False, channels=1),
        ms=12_000,
    ),
    _case(
        "MP3, 6 s of 44.1 kHz then 6 s of 48 kHz",
        lambda: _headerless() + sounds.mp3(header=False, rate_hz=48_000),
        ms=12_000,
    ),
    _case("MP3, half of its last frame", lambda: sounds.mp3()[:-200]),
    _case("MP3 without a header, half of its last frame", lambda: _headerless()[:-200]),
    _case("WAV out of a pipe, sizes of all ones", lambda: _wav(_ONES, _ONES)),
    _case("WAV out of a pipe, sizes of 0", lambda: _wav(_ZERO, _ZERO)),
    _case(
        "WAV out of a pipe for another track",
        lambda: _wav(_ONES, _ONES),
        ms=20_000,
        verdict="wrong_length",
    ),
    _case("WAV, RIFF size 0", lambda: _wav(_ZERO, _data_size())),
    _case("WAV out of a pipe, one byte too many", lambda: _wav(_ONES, _ONES, behind=b"\0")),
    _case("WAV, an odd number of bytes", lambda: _wav(_riff_size(1), _data_size(1), behind=b"\0")),
    _case(
        "WAV, an odd chunk with its pad byte",
        lambda: _wav(_riff_size(16), _data_size(), before=_ODD_CHUNK + b"\0"),
    ),
    _case(
        "WAV, a chunk behind the samples",
        lambda: _wav(_riff_size(16), _data_size(), behind=_ODD_CHUNK + b"\0"),
    ),
    _case(
        "WAV, a chunk that is cut behind the samples",
        lambda: _wav(_riff_size(708), _data_size(), behind=_CUT_CHUNK),
    ),
    # No ffmpeg finds the samples.
    _case(
        "WAV, an odd chunk without its pad byte",
        lambda: _wav(_riff_size(15), _data_size(), before=_ODD_CHUNK),
        verdict="not_audio",
    ),
    *(
        _case(f"{name} without its last flag", _unmarked(audio))
        for name, audio in (("Vorbis", sounds.vorbis), ("Opus", sounds.opus))
    ),
]


def _bad_end(audio: Callable[[], bytes], size: int, before: int) -> Callable[[], bytes]:
    """With noise instead of `size` bytes that end so many bytes before the audio does."""

    def content() -> bytes:
        whole = audio()
        index = whole.rfind(b"moov") - 4  # of an MP4, behind its audio
        end = (index if index > 0 else len(whole)) - before
        return whole[: end - size] + random.Random(5).randbytes(size) + whole[end:]

    return content


_CODECS: dict[str, Callable[[], bytes]] = {
    "MP3": sounds.mp3,
    "VBR MP3": sounds.vbr_mp3,
    "FLAC": sounds.flac,
    "ALAC": sounds.alac,
} | {name: audio for name, audio in _OTHERS.items() if name != "WAV"}
_CUT: dict[str, dict[str, Callable[[], bytes]]] = {
    "truncated": {
        "VBR MP3": sounds.vbr_mp3,
        "raw AAC": sounds.adts,
        "Vorbis": sounds.vorbis,
        "Opus": sounds.opus,
        "WAV": sounds.wav,
    },
    "decode_errors": {"FLAC": sounds.flac},
    # Their index is at the end.
    "not_audio": {"ALAC": sounds.alac, "AAC in MP4": sounds.aac},
}
_CHECKED: dict[str, Callable[[], bytes]] = {
    "FLAC": sounds.flac,
    "Vorbis": sounds.vorbis,
    "Opus": sounds.opus,
}

_DAMAGE: Sequence[Case] = [
    *(
        _case(f"{name}, noise over a part of it, {seed}", _broken(audio, seed), verdict=_ERRORS)
        for name, audio in _CODECS.items()
        for seed in (6, 10)
    ),
    *(
        _case(f"{name}, noise in its last packet", _bad_end(audio, size, 0), verdict=verdict)
        for name, audio, size, verdict in (
            ("MP3", sounds.mp3, 400, "whole"),
            ("MP3 without a header", _headerless, 400, "whole"),
            ("raw AAC", sounds.adts, 200, "whole"),
            ("AAC in MP4", sounds.aac, 6, "whole"),
            # Of a lossless file it is music.
            ("ALAC", sounds.alac, 3000, _ERRORS),
            ("FLAC", sounds.flac, 300, _ERRORS),
        )
    ),
    *(
        _case(f"{name}, noise 1 s before its end", _bad_end(audio, 1500, 16_000), verdict=_ERRORS)
        for name, audio in (
            ("MP3", sounds.mp3),
            ("raw AAC", sounds.adts),
            ("AAC in MP4", sounds.aac),
        )
    ),
    *(
        _case(
            f"{name}, noise in one packet of the middle",
            _bad_end(audio, 350, 48_000),
            verdict=_ERRORS,
        )
        for name, audio in (
            ("MP3", sounds.mp3),
            ("raw AAC", sounds.adts),
            ("AAC in MP4", sounds.aac),
        )
    ),
    *(
        _case(f"{name}, one bit", partial(lambda a: _flipped(a()), audio), verdict=_ERRORS)
        for name, audio in _CHECKED.items()
    ),
    *(
        _case(f"{name} cut in half", partial(_half, audio), verdict=rule)
        for rule, several in _CUT.items()
        for name, audio in several.items()
    ),
    _case(
        "Vorbis, a page lost", lambda: _without_pages(sounds.vorbis(), 5, 6), verdict="truncated"
    ),
    _case(
        "Vorbis, the last page lost",
        lambda: _without_pages(sounds.vorbis(), -3, None),
        verdict="truncated",
    ),
    _case(
        "Vorbis without its last flag, no length in the catalog",
        _unmarked(sounds.vorbis),
        ms=None,
        verdict="truncated",
    ),
]

CASES: Sequence[Case] = [*_NO_DAMAGE, *_DAMAGE]
