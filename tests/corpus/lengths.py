"""What a header says of the length, what the file shows of its end, and the catalog's word."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from tests.corpus import sounds, tags
from tests.corpus.case import Case
from tests.corpus.damage import checked_page, ogg_pages
from tests.corpus.sounds import written

_MS = 6000
_FRAME_S = 1152 / 44_100


def _case(
    name: str, content: Callable[[], bytes], *, ms: int | None = _MS, verdict: str = "whole"
) -> Case:
    return Case(name=name, make=written(content), expected_ms=ms, verdict=verdict)


def _counting(audio: bytes, frames: int, *, flags: int | None = None) -> bytes:
    """The MP3 with another number of frames in its header."""
    at = next(at for mark in (b"Xing", b"Info") if (at := audio.find(mark, 0, 64)) >= 0)
    kept = audio[at + 4 : at + 8] if flags is None else struct.pack(">I", flags)
    return audio[: at + 4] + kept + struct.pack(">I", frames) + audio[at + 12 :]


def _vbri(audio: bytes, frames: int) -> bytes:
    """The MP3 with Fraunhofer's header in place of LAME's."""
    header = b"VBRI" + struct.pack(">HHHIIHHHH", 1, 0, 75, len(audio), frames, 0, 1, 2, 1)
    return audio[:36] + header + bytes(381 - len(header)) + audio[417:]


def _frames(audio: bytes) -> list[bytes]:
    """The frames of an MP3 of constant 128 kbit/s at 44.1 kHz."""
    found, at = [], 0
    while at + 4 <= len(audio):
        size = 417 + (audio[at + 2] >> 1 & 1)
        found.append(audio[at : at + size])
        at += size
    return found


def _first(seconds: float, *, header: bool) -> bytes:
    """The first whole frames of a longer MP3, as an editor cuts it."""
    count = round(seconds / _FRAME_S)
    return b"".join(_frames(sounds.mp3(seconds=20, header=header))[: count + header])


def _last(seconds: float) -> bytes:
    """The last whole frames of an MP3, of which the first one needs bytes of the one before."""
    return b"".join(_frames(sounds.mp3(header=False))[-round(seconds / _FRAME_S) :])


def _tagged(audio: bytes) -> bytes:
    return tags.id3v2(tags.frame(b"TIT2", b"\0Title"), padding=500) + audio + tags.ID3V1


def _of_unknown_length(audio: bytes) -> bytes:
    """A FLAC out of a pipe: STREAMINFO has no number of samples, and no checksum of them."""
    at = audio.index(b"fLaC") + 8
    return audio[: at + 13] + bytes((audio[at + 13] & 0xF0,)) + bytes(20) + audio[at + 34 :]


def _begun_late(audio: bytes, samples: int) -> bytes:
    """An Ogg file whose clock is this far ahead, as a part of a broadcast has it."""
    first, second, *rest = ogg_pages(audio)
    late = (
        page[:6] + struct.pack("<q", struct.unpack("<q", page[6:14])[0] + samples) + page[14:]
        for page in rest
    )
    return b"".join((first, second, *map(checked_page, late)))


CASES: Sequence[Case] = [
    _case(
        "VBR MP3 whose header counts 0 frames",
        lambda: _counting(sounds.vbr_mp3(seconds=40), 0),
        ms=40_000,
    ),
    _case("VBR MP3 whose header has no count", lambda: _counting(sounds.vbr_mp3(), 0, flags=0)),
    _case("VBR MP3 without a header", lambda: sounds.vbr_mp3(header=False)),
    _case("MP3 with a VBRI header", lambda: _vbri(sounds.mp3(), 231)),
    _case("MP3 with a VBRI header that counts 0", lambda: _vbri(sounds.mp3(), 0)),
    _case("two MP3s in one", lambda: sounds.mp3() * 2, ms=12_000),
    _case("two MP3s with their tags in one", lambda: _tagged(sounds.mp3()) * 2, ms=12_000),
    _case("two MP3s in one for the first", lambda: sounds.mp3() * 2, verdict="wrong_length"),
    _case("two Vorbis files in one", lambda: sounds.vorbis() * 2, ms=12_000),
    _case("two Vorbis files for one", lambda: sounds.vorbis() * 2, verdict="wrong_length"),
    _case("Vorbis out of a broadcast", lambda: _begun_late(sounds.vorbis(), 4_410_000)),
    _case("Opus out of a broadcast", lambda: _begun_late(sounds.opus(), 4_800_000)),
    _case("MP3 cut by an editor at its start", lambda: _last(4.5), ms=4700),
    _case("MP3 cut by an editor", lambda: _first(14, header=True), ms=14_000),
    _case(
        "MP3 cut by an editor, no length in the catalog",
        lambda: _first(14, header=True),
        ms=None,
        verdict="truncated",
    ),
    _case(
        "MP3 that ends within a frame, 6 s early",
        lambda: _first(14, header=True) + b"\xff\xfb\x90\x64" + bytes(range(200)),
        ms=14_000,
        verdict="truncated",
    ),
    *(
        _case(
            f"MP3 without a header that ends within a frame, 1.5 s early, catalog {ms} ms",
            lambda: _first(18.5, header=False) + b"\xff\xfb\x90\x64" + bytes(range(200)),
            ms=ms,
            verdict=verdict,
        )
        for ms, verdict in ((20_000, "truncated"), (18_500, "whole"))
    ),
    # Nothing in such a file shows that it was cut: the tolerance is all there is.
    _case("MP3 without a header cut by 1.5 s", lambda: _first(18.5, header=False), ms=20_000),
    _case(
        "raw AAC that ends within a frame, 1.5 s early",
        lambda: sounds.adts(seconds=18.5)[:-90],
        ms=20_000,
        verdict="truncated",
    ),
    _case("raw AAC that ends within its last frame", lambda: sounds.adts()[:-90]),
    _case(
        "3 s for an interlude of 8 s",
        lambda: sounds.flac(seconds=3),
        ms=8000,
        verdict="wrong_length",
    ),
    _case(
        "8 s for an interlude of 3 s",
        lambda: sounds.flac(seconds=8),
        ms=3000,
        verdict="wrong_length",
    ),
    _case("8 s for an interlude of 8.9 s", lambda: sounds.flac(seconds=8), ms=8900),
    _case("18.5 s for a track of 20 s", lambda: sounds.flac(seconds=18.5), ms=20_000),
    _case("half a second", lambda: sounds.flac(seconds=0.5), ms=500),
    _case("FLAC that does not say its length", lambda: _of_unknown_length(sounds.flac())),
    _case(
        "FLAC that does not say its length, for another track",
        lambda: _of_unknown_length(sounds.flac()),
        ms=20_000,
        verdict="wrong_length",
    ),
]
