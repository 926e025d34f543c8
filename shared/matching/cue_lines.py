"""The lines of a CUE sheet: files, tracks and times, and texts as bytes.

Commands, numbers and times are ASCII in every encoding, so they are read from the bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_BYTES = 256 * 1024
MAX_TRACKS = 200
FRAMES_PER_S = 75

_LONGEST_LINE = 1000
# Blanks, also those of other encodings, and marks of UTF-8 that were copied into the text.
_BLANKS = b" \t\x0b\x0c\x00\xa0\xc2\xe3\x80\xef\xbb\xbf"
_WORD = re.compile(rb"[A-Za-z0-9_]+")
_TRACK = re.compile(rb"(\d{1,3})\s+(\w+)")
# Minutes, seconds and frames; some programs put hours before them.
_INDEX = re.compile(rb"(\d{1,2})\s+(?:(\d{1,2}):(?=\d+:\d+:))?(\d{1,4}):(\d{1,2}):(\d{1,2})(?!\S)")
_MARKS = (
    (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"),
)  # fmt: skip
# In UTF-16 every other byte of an ASCII character is 0; a sheet is mostly ASCII.
_WIDE, _NARROW = 0.3, 0.1


@dataclass
class Track:
    """A track as its lines say. `lost`: why its INDEX 01 is not usable."""

    number: int
    audio: bool
    start_s: float | None = None
    # Where the gap before it begins, in the same file.
    gap_s: float | None = None
    texts: dict[str, bytes] = field(default_factory=dict)
    lost: str | None = None


@dataclass
class Lines:
    """What the lines say: the files by name with the tracks that begin in them, and texts."""

    files: list[tuple[bytes, list[Track]]] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)
    disc: int | None = None
    count: int = 0
    # The track whose lines follow.
    track: Track | None = None


def read_lines(data: bytes) -> Lines:
    """Read a sheet. Raises ValueError with the reason if it is not one, or is too large."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"a sheet of {len(data)} bytes; at most {MAX_BYTES} are read")
    lines = Lines()
    for line in _with_ascii(data).splitlines():
        word, rest = _command(line)
        if len(line) > _LONGEST_LINE and not word.startswith("REM"):
            raise ValueError(f"a line of {len(line)} characters; at most {_LONGEST_LINE} are read")
        _read(lines, word, rest[:_LONGEST_LINE])
    _end_track(lines)
    if not lines.count:
        raise ValueError("names no track")
    return lines


def _with_ascii(data: bytes) -> bytes:
    """The text in an encoding that has ASCII as it is."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding is None:
        half = max(1, len(data) // 2)
        first, second = data[0::2].count(0) / half, data[1::2].count(0) / half
        if max(first, second) < _WIDE or min(first, second) > _NARROW:
            return data
        encoding = "utf-16-le" if second > first else "utf-16-be"
    return data.decode(encoding, "replace").encode()


def _command(line: bytes) -> tuple[str, bytes]:
    """The command of a line in upper case ("REM" with its kind), and the text behind it."""
    word, rest = _first_word(line.lstrip(_BLANKS).rstrip())
    if word == "REM":
        kind, rest = _first_word(rest)
        word = f"REM {kind}"
    return word, rest


def _first_word(text: bytes) -> tuple[str, bytes]:
    found = _WORD.match(text)
    return (found[0].decode().upper(), text[found.end() :].strip()) if found else ("", text)


def _read(lines: Lines, word: str, rest: bytes) -> None:
    match word:
        case "FILE":
            _begin_file(lines, rest)
        case "TRACK":
            _begin_track(lines, rest)
        case "INDEX":
            _read_index(lines, rest)
        case "TITLE" | "PERFORMER":
            texts = lines.texts if lines.track is None else lines.track.texts
            texts.setdefault(word, rest.removeprefix(b'"').removesuffix(b'"').strip())
        case "REM DISCNUMBER":
            disc = rest.strip(b'"')
            lines.disc = int(disc) if disc.isdigit() and 0 < int(disc[:4]) < 100 else None
        case _:
            pass  # PREGAP is silence that no file has; FLAGS, ISRC and remarks are not needed.


def _begin_file(lines: Lines, rest: bytes) -> None:
    name = _named(rest)
    if not name.strip():
        raise ValueError("a FILE without a name")
    track = lines.track
    if track is not None and (track.start_s is not None or track.lost):
        _end_track(lines)
    elif track is not None:
        # It has its gap in the file before, and continues in this one.
        track.gap_s = None
    lines.files.append((name, []))


def _named(rest: bytes) -> bytes:
    """The name in `"name" TYPE` or `name TYPE`; the type may be missing."""
    if rest.startswith(b'"') and (end := rest.find(b'"', 1)) > 0:
        return rest[1:end]
    name, *kind = rest.rsplit(maxsplit=1) or [b""]
    return name if kind and _WORD.fullmatch(kind[0]) else rest


def _begin_track(lines: Lines, rest: bytes) -> None:
    _end_track(lines)
    found = _TRACK.match(rest)
    if not found or not lines.files:
        raise ValueError(f"TRACK {_shown(rest)} is not understood")
    lines.count += 1
    if lines.count > MAX_TRACKS:
        raise ValueError(f"more than {MAX_TRACKS} tracks")
    lines.track = Track(number=int(found[1]), audio=found[2].upper() == b"AUDIO")


def _read_index(lines: Lines, rest: bytes) -> None:
    found = _INDEX.match(rest)
    number, at_s = (int(found[1]), _seconds(found)) if found else (_index_number(rest), None)
    track = lines.track
    if track is None:
        if number == 1:
            raise ValueError(f"INDEX {_shown(rest)} belongs to no track")
    elif number == 0:
        track.gap_s = at_s
    elif number == 1 and at_s is None:
        track.lost = f"INDEX {_shown(rest)} is not understood"
    elif number == 1 and track.start_s not in {None, at_s}:
        track.lost = f"track {track.number} has two INDEX 01"
    elif number == 1:
        track.start_s = at_s


def _index_number(rest: bytes) -> int:
    """The number of an INDEX that is not understood: most are 01."""
    word = rest.split(maxsplit=1)[:1]
    return int(word[0]) if word and word[0].isdigit() and len(word[0]) < 3 else 1


def _seconds(found: re.Match[bytes]) -> float | None:
    hours, minutes, seconds, frames = (int(part or 0) for part in found.groups()[1:])
    # Programs that round write 75 frames, or 60 seconds.
    if seconds > 60 or frames > FRAMES_PER_S or (found[2] and minutes > 60):
        return None
    return hours * 3600 + minutes * 60 + seconds + frames / FRAMES_PER_S


def _end_track(lines: Lines) -> None:
    track, lines.track = lines.track, None
    if track is None:
        return
    if track.start_s is None and track.lost is None:
        track.lost = f"track {track.number} has no INDEX 01"
    # Where data begins is of use only as the end of the track before.
    if track.audio or track.lost is None:
        lines.files[-1][1].append(track)


def _shown(rest: bytes) -> str:
    return repr(rest[:40].decode("ascii", "replace"))
