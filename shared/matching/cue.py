"""CUE sheets: where tracks lie in a file. An ambiguous sheet is refused with a reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from shared.matching.model import Offered

MAX_BYTES = 256 * 1024
MAX_TRACKS = 200
_FRAMES_PER_S = 75

_LONGEST_LINE = 1000
_WORD = re.compile(r"\w+")
_TRACK = re.compile(r"^(\d{1,3})\s+(\w+)", re.IGNORECASE)
_INDEX = re.compile(r"^(\d{1,2})\s+(\d{1,4}):(\d{1,2}):(\d{1,2})$")
_KANA = re.compile(r"[\u3041-\u30ff]{2}")
_CYRILLIC_RUN = re.compile(rb"[\xc0-\xff\xa8\xb8]{3,}")
_HIGH = re.compile(rb"[\x80-\xff]")
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass(frozen=True, kw_only=True)
class CueTrack:
    """A track of a sheet; `end_s` None: the file's end. A gap belongs to the track before it."""

    number: int
    start_s: float
    end_s: float | None = None
    title: str | None = None
    performer: str | None = None


@dataclass(frozen=True, kw_only=True)
class CueFile:
    """A file, by its name in the sheet, with the tracks that begin in it."""

    name: str
    tracks: tuple[CueTrack, ...]


@dataclass(frozen=True, kw_only=True)
class CueSheet:
    """A parsed sheet."""

    files: tuple[CueFile, ...]
    title: str | None = None
    performer: str | None = None
    disc: int | None = None


@dataclass
class _Reading:
    """What was parsed up to the current line."""

    files: list[tuple[str, list[CueTrack]]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    disc: int | None = None
    track: CueTrack | None = None
    count: int = 0


def parse(data: bytes) -> CueSheet:
    """Parse a sheet. Raises ValueError with the reason if it is not one, or is inconsistent."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"a sheet of {len(data)} bytes; at most {MAX_BYTES} are read")
    reading = _Reading()
    for line in _decoded(data).splitlines():
        word, rest = _command(line)
        if len(line) > _LONGEST_LINE and not word.startswith("REM"):
            raise ValueError(f"a line of {len(line)} characters; at most {_LONGEST_LINE} are read")
        _read(reading, word, rest[:_LONGEST_LINE])
    _end_track(reading)
    if not reading.count:
        raise ValueError("names no track")
    return CueSheet(
        files=tuple(_file(name, tracks) for name, tracks in reading.files if tracks),
        title=reading.texts.get("TITLE"),
        performer=reading.texts.get("PERFORMER"),
        disc=reading.disc,
    )


def parts(sheet: CueSheet, beside: Sequence[Offered]) -> list[Offered]:
    """The parts that the sheet names of the files `beside` it, in the same folder.

    Their lengths are known once the file is measured. Raises ValueError with the reason: it is
    ambiguous which file is meant, a track begins beyond a file's end, or each track has its own
    file, so that there is nothing to split.
    """
    if all(len(file.tracks) < 2 for file in sheet.files):
        raise ValueError("one file for each track: nothing to split")
    found = []
    for file in sheet.files:
        audio = _meant(file.name, beside)
        _check_within(file, audio)
        if len(file.tracks) > 1:
            found += [_part(track, sheet, audio, len(file.tracks)) for track in file.tracks]
    if len({part.name for part in found}) != len(found):
        raise ValueError("names a track twice")
    return found


def agreed(named: Mapping[str, Sequence[Offered]]) -> list[Offered]:
    """The parts of all sheets, by the sheet's path; none of a file about which sheets disagree."""
    by_file: dict[str, dict[str, list[Offered]]] = {}
    for path, found in sorted(named.items()):
        for part in found:
            by_file.setdefault(part.file_name, {}).setdefault(path, []).append(part)
    return [
        part
        for _, sheets in sorted(by_file.items())
        if len({_places(found) for found in sheets.values()}) == 1
        for part in next(iter(sheets.values()))
    ]


def _places(parts_: Iterable[Offered]) -> tuple[tuple[str, float | None], ...]:
    return tuple((part.name, part.start_s) for part in parts_)


def _decoded(data: bytes) -> str:
    """The text: by its byte order mark, else in the first encoding that fits and is plausible.

    Every byte is a letter in Windows' code pages. They are told apart by runs: several high bytes
    in a row are Cyrillic, single ones are accents.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strictly(data, encoding) or _refuse_encoding()
    utf8 = _strictly(data, "utf-8")
    if utf8 is not None:
        return utf8
    japanese = _strictly(data, "cp932")
    if japanese is not None and _KANA.search(japanese):
        return japanese
    runs = sum(len(run) for run in _CYRILLIC_RUN.findall(data))
    if 2 * runs > len(_HIGH.findall(data)) and (russian := _strictly(data, "cp1251")) is not None:
        return russian
    western = _strictly(data, "cp1252")
    return western if western is not None else _refuse_encoding()


def _refuse_encoding() -> str:
    raise ValueError("its text is in no encoding that is known here")


def _strictly(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _command(line: str) -> tuple[str, str]:
    """The command of a line in upper case ("REM" with its kind), and the text behind it."""
    word, rest = _first_word(line.strip())
    if word.upper() == "REM":
        kind, rest = _first_word(rest)
        word = f"{word} {kind}"
    return word.upper(), rest


def _first_word(text: str) -> tuple[str, str]:
    found = _WORD.match(text)
    return (found[0], text[found.end() :].strip()) if found else ("", text)


def _read(reading: _Reading, word: str, rest: str) -> None:
    match word:
        case "FILE":
            _begin_file(reading, rest)
        case "TRACK":
            _begin_track(reading, rest)
        case "INDEX":
            _read_index(reading, rest)
        case "TITLE" | "PERFORMER":
            _read_text(reading, word, rest)
        case "REM DISCNUMBER":
            disc = rest.strip('"')
            reading.disc = int(disc) if disc.isdecimal() and 0 < int(disc) < 100 else None
        case _:
            pass  # PREGAP is silence that no file has; FLAGS, ISRC and remarks are not needed.


def _begin_file(reading: _Reading, rest: str) -> None:
    base = _named(rest).replace("\\", "/").rpartition("/")[2].strip()
    if not base:
        raise ValueError("a FILE without a name")
    # A track without its INDEX 01 yet continues in this file.
    if reading.track is not None and reading.track.start_s >= 0:
        _end_track(reading)
    reading.files.append((base, []))


def _named(rest: str) -> str:
    """The name in `"name" TYPE` or `name TYPE`; the type may be missing."""
    if rest.startswith('"') and (end := rest.find('"', 1)) > 0:
        return rest[1:end]
    name, *kind = rest.rsplit(maxsplit=1) or [""]
    return name if kind and _WORD.fullmatch(kind[0]) else rest


def _begin_track(reading: _Reading, rest: str) -> None:
    _end_track(reading)
    found = _TRACK.match(rest)
    if not found or not reading.files:
        raise ValueError(f"TRACK {rest[:40]!r} is not understood")
    if found[2].upper() != "AUDIO":
        raise ValueError(f"track {int(found[1])} is no audio")
    reading.count += 1
    if reading.count > MAX_TRACKS:
        raise ValueError(f"more than {MAX_TRACKS} tracks")
    reading.track = CueTrack(number=int(found[1]), start_s=-1.0)


def _read_index(reading: _Reading, rest: str) -> None:
    found = _INDEX.match(rest)
    if not found or reading.track is None or int(found[3]) > 59 or int(found[4]) >= _FRAMES_PER_S:
        raise ValueError(f"INDEX {rest[:40]!r} is not understood")
    if int(found[1]) == 1:
        at_s = int(found[2]) * 60 + int(found[3]) + int(found[4]) / _FRAMES_PER_S
        reading.track = replace(reading.track, start_s=at_s)


def _read_text(reading: _Reading, word: str, rest: str) -> None:
    text = rest.strip().removeprefix('"').removesuffix('"').strip()
    if reading.track is None:
        reading.texts.setdefault(word, text)
    elif word == "TITLE":
        reading.track = replace(reading.track, title=text or None)
    else:
        reading.track = replace(reading.track, performer=text or None)


def _end_track(reading: _Reading) -> None:
    if reading.track is None:
        return
    if reading.track.start_s < 0:
        raise ValueError(f"track {reading.track.number} has no INDEX 01")
    reading.files[-1][1].append(reading.track)
    reading.track = None


def _file(name: str, tracks: Sequence[CueTrack]) -> CueFile:
    """The file, with the next track's start as the end of each track."""
    ended = []
    for track, after in zip(tracks, [*tracks[1:], None], strict=True):
        if after is not None and after.start_s <= track.start_s:
            raise ValueError(f"track {after.number} begins before track {track.number} does")
        ended.append(replace(track, end_s=after.start_s if after is not None else None))
    return CueFile(name=name, tracks=tuple(ended))


def _meant(name: str, beside: Sequence[Offered]) -> Offered:
    """The file with this name, or else the only one with this name and another ending."""
    named = [one for one in beside if _base(one) == name.casefold()]
    if not named:
        stem = _stem(name.casefold())
        named = [one for one in beside if _stem(_base(one)) == stem]
    if len(named) != 1:
        raise ValueError(f"{len(named) or 'no'} files beside it can be {name!r}")
    return named[0]


def _base(one: Offered) -> str:
    return one.name.rpartition("/")[2].casefold()


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _check_within(file: CueFile, audio: Offered) -> None:
    last = file.tracks[-1]
    if audio.duration_s is not None and last.start_s >= audio.duration_s:
        raise ValueError(f"track {last.number} begins beyond the end of {audio.name!r}")


def _part(track: CueTrack, sheet: CueSheet, audio: Offered, count: int) -> Offered:
    length_s = None
    size_bytes = audio.size_bytes // count
    if audio.duration_s is not None:
        length_s = (audio.duration_s if track.end_s is None else track.end_s) - track.start_s
        size_bytes = round(audio.size_bytes * length_s / audio.duration_s)
    return Offered(
        name=f"{audio.name}#{track.number:02d}",
        size_bytes=size_bytes,
        duration_s=length_s,
        title=track.title,
        disc=sheet.disc,
        number=track.number,
        start_s=track.start_s,
        end_s=track.end_s,
    )
