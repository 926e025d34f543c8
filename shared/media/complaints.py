"""What ffmpeg's complaints are about: the audio, or something else in the file.

A line begins with the names of its sources: "[aist#0:0/mp3 @ 0x1] [dec:mp3float @ 0x2] text". The
last one has said it: a decoder, the reader of the container, a tag or a cover, or ffmpeg itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_KEPT_LINES = 20
_MOST_OF_ONE = 4

_SOURCE = re.compile(r"\[([^]\[]*?) @ [^]]*\] ?")
_PICTURES = frozenset({"mjpeg", "jpegls", "png", "apng", "gif", "bmp", "webp", "tiff"})
# Of tags and cover pictures, by a reader that has the name of a decoder, or none.
_HARMLESS = re.compile(
    r"Incorrect BOM value|Cannot read BOM value|Error reading (comment |lyrics)?.*skipped"
    r"|.*attached picture",
    re.IGNORECASE,
)
# What a reader says when audio is lost.
_LOST = re.compile(
    r"error during demuxing|partial file|crc mismatch|packet corrupt|corrupt input"
    r"|input/output error|error while decoding|error decoding|decode error"
    r"|more complaints than|invalid data found|packet_(obj|frag)_size|ff asf"
    r"|read error|invalid as first byte|exceeds containing master|invalid block header",
    re.IGNORECASE,
)
# Readers with the name of a decoder: what they say counts as the decoder's.
_DECODERS_TOO = frozenset({"flac", "aac", "ape", "tta", "tak", "ac3", "eac3"})
# ffmpeg's output, and its access to the file.
_OTHERS = frozenset({"null", "file", "subfile", "AVIOContext"})
_FAILED_PACKET = re.compile(r"Error (submitting packet to decoder|while decoding stream)")
_REPEATED = re.compile(r"\s*Last message repeated \d+ times")


def serious_lines(stderr: str) -> tuple[str, ...]:
    """The first lines that are not about a tag or a cover."""
    return _kept(stderr, lambda line: not _is_harmless(line))


def damage_lines(stderr: str, *, readers: str) -> tuple[str, ...]:
    """The first lines that report damaged or lost audio.

    `readers`: ffmpeg's names of the readers of containers, with commas.
    """
    names = frozenset(readers.split(",")) - _DECODERS_TOO
    return _kept(stderr, lambda line: not _is_harmless(line) and _is_damage(line, names))


def about_one_packet(lines: Sequence[str]) -> bool:
    """Whether the lines of `damage_lines` may all be about one packet that was not decoded."""
    failed = sum(bool(_FAILED_PACKET.search(line)) for line in lines)
    return failed <= 1 and len(lines) <= _MOST_OF_ONE


def _kept(stderr: str, wanted: Callable[[str], bool]) -> tuple[str, ...]:
    kept: list[str] = []
    last = False
    for line in stderr.splitlines():
        if not _REPEATED.match(line):
            last = bool(line.strip()) and wanted(line)
        if last:
            kept.append(line[:300])
            if len(kept) == _KEPT_LINES:
                break
    return tuple(kept)


def _is_harmless(line: str) -> bool:
    name, text = _parted(line)
    return name in _PICTURES or bool(_HARMLESS.match(text))


def _is_damage(line: str, readers: frozenset[str]) -> bool:
    name, text = _parted(line)
    return _decodes(name, readers) or bool(_LOST.search(text))


def _decodes(name: str, readers: frozenset[str]) -> bool:
    """Whether it is a decoder, or ffmpeg on its behalf."""
    if name.startswith(("aist#", "dec:")):
        return True
    # Such as "mov,mp4,m4a,3gp,3g2,mj2", "in#0/mp3" and "Vorbis parser".
    reads = name.partition(",")[0] in readers or "#" in name or name.endswith(" parser")
    return bool(name) and not reads and name not in _OTHERS


def _parted(line: str) -> tuple[str, str]:
    """The name of the source, empty where there is none, and the text."""
    name, at = "", 0
    while found := _SOURCE.match(line, at):
        name, at = found[1], found.end()
    return name, line[at:]
