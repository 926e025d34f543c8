"""CUE sheets: where tracks lie in a file.

A sheet is refused with a reason if it is ambiguous as a whole. A track without a usable INDEX costs
that track, and data is skipped. Titles are read where their letters are sure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from shared.matching import lettering
from shared.matching.cue_lines import FRAMES_PER_S, Lines, Track, read_lines
from shared.matching.model import Link, Offered

# Letters that the writer could not save ("F?r", "???? ????"), or a reader replaced.
_LOST = re.compile(r"\?\w|(?<!\w)\?\?|[\ufffd\x00-\x08]")
# How far a file may be from the length that its sheet says.
_SAME_LENGTH_S = 1.0


@dataclass(frozen=True, kw_only=True)
class CueTrack:
    """An audio track. `end_s` None: the file's end. A gap belongs to the track before it.

    `end_sure` False: what follows has no usable INDEX, so the track ends somewhere before `end_s`.
    """

    number: int
    start_s: float
    end_s: float | None = None
    end_sure: bool = True
    title: str | None = None
    performer: str | None = None


@dataclass(frozen=True, kw_only=True)
class CueFile:
    """A file, with the audio tracks that begin in it; `listed` counts also those that are lost.

    The name is None where its letters are not sure, or the sheet names none.
    """

    name: str | None
    tracks: tuple[CueTrack, ...]
    listed: int


@dataclass(frozen=True, kw_only=True)
class CueSheet:
    """A sheet. `length_s`: how long its one file has to be, where the sheet says so."""

    files: tuple[CueFile, ...]
    title: str | None = None
    performer: str | None = None
    disc: int | None = None
    length_s: float | None = None


def parse(data: bytes) -> CueSheet:
    """Parse a sheet. Raises ValueError with the reason if it is not one, or is ambiguous."""
    return sheet_of(read_lines(data))


def sheet_of(lines: Lines, *, length_s: float | None = None) -> CueSheet:
    """The sheet that the lines say. Raises ValueError with the reason if it is ambiguous."""
    letters = _letters(_all_texts(lines))
    for _, tracks in lines.files:
        _lose_what_is_out_of_order(tracks)
    files = [_file(_base(letters[name]), tracks, letters) for name, tracks in lines.files]
    if not _usable(files):
        raise ValueError(_why_none(track for _, tracks in lines.files for track in tracks))
    return CueSheet(
        files=tuple(file for file in files if file.listed),
        title=letters.get(lines.texts.get("TITLE", b"")),
        performer=letters.get(lines.texts.get("PERFORMER", b"")),
        disc=lines.disc,
        length_s=length_s,
    )


def parts(sheet: CueSheet, beside: Sequence[Offered], *, path: str | None = None) -> list[Offered]:
    """The parts that the sheet at `path` names of the files `beside` it, in the same folder.

    A file is meant by its name in the sheet, with any ending; else by the sheet's own name; else it
    is the only one that is long enough. Lengths of parts are known once the file is measured.

    Raises ValueError with the reason: it is ambiguous which file is meant, a track begins beyond a
    file's end, or each track has its own file, so that there is nothing to split.
    """
    if all(file.listed < 2 for file in sheet.files):
        raise ValueError("one file for each track: nothing to split")
    by_name = _by_name(beside)
    found: list[Offered] = []
    for file in sheet.files:
        audio, link = _meant(file, sheet, by_name, path)
        if file.listed > 1:
            found += _parts(file, sheet, audio, link)
    if not found:
        raise ValueError("the tracks of the files to split are lost")
    if len({part.name for part in found}) != len(found):
        raise ValueError("names a track twice")
    return found


def embedded_parts(sheet: CueSheet, audio: Offered) -> list[Offered]:
    """The parts of `audio`, which has the sheet in itself. Raises ValueError as `parts`."""
    if len(sheet.files) != 1 or sheet.files[0].listed < 2:
        raise ValueError("its sheet does not split one file")
    return _parts(sheet.files[0], sheet, audio, Link.EMBEDDED)


def agreed(named: Mapping[str, Sequence[Offered]]) -> list[Offered]:
    """The parts of all sheets, by the sheet's path; none of a file about which sheets disagree.

    The sheets that are linked best to a file count. They agree if their times differ by a frame at
    most; one may lack tracks or titles that another has.
    """
    by_file: dict[str, dict[str, list[Offered]]] = {}
    for path, found in sorted(named.items()):
        for part in found:
            by_file.setdefault(part.file_name, {}).setdefault(path, []).append(part)
    return [part for _, found in sorted(by_file.items()) for part in _merged(list(found.values()))]


# --- the sheet


def _all_texts(lines: Lines) -> Iterator[bytes]:
    yield from lines.texts.values()
    for name, tracks in lines.files:
        yield name
        for track in tracks:
            yield from track.texts.values()


def _letters(texts: Iterable[bytes]) -> Mapping[bytes, str | None]:
    """Each text; None where it is empty, or its letters are not sure or were lost."""
    ordered = list(dict.fromkeys(texts))
    read = zip(ordered, lettering.read(ordered), strict=True)
    return {raw: text if text and not _LOST.search(text) else None for raw, text in read}


def _usable(files: Sequence[CueFile]) -> bool:
    """Whether a track can be cut, and at least half of all have their place."""
    placed = [track for file in files for track in file.tracks]
    listed = sum(file.listed for file in files)
    return any(track.end_sure for track in placed) and 2 * len(placed) >= listed


def _why_none(tracks: Iterable[Track]) -> str:
    reasons = [track.lost for track in tracks if track.lost or not track.audio]
    return (reasons and reasons[0]) or "its tracks are no audio"


def _base(name: str | None) -> str | None:
    return name and name.replace("\\", "/").rpartition("/")[2].strip()


def _lose_what_is_out_of_order(tracks: Sequence[Track]) -> None:
    """Mark the track that begins before the one ahead of it as lost; both, if either may be.

    Raises ValueError if more than one track is out of order.
    """
    placed = [track for track in tracks if track.lost is None]
    breaks = _breaks(placed)
    if not breaks:
        return
    at = breaks[0]
    wrong = [one for one in (at - 1, at) if not _breaks([*placed[:one], *placed[one + 1 :]])]
    message = f"track {placed[at].number} begins before track {placed[at - 1].number} does"
    if not wrong:
        raise ValueError(message)
    for one in wrong:
        placed[one].lost = message


def _breaks(tracks: Sequence[Track]) -> list[int]:
    starts = [track.start_s or 0.0 for track in tracks]
    return [at for at in range(1, len(starts)) if starts[at] <= starts[at - 1]]


def _file(
    name: str | None, tracks: Sequence[Track], letters: Mapping[bytes, str | None]
) -> CueFile:
    audio = [
        CueTrack(
            number=track.number,
            start_s=track.start_s,
            end_s=end_s,
            end_sure=end_sure,
            title=letters.get(track.texts.get("TITLE", b"")),
            performer=letters.get(track.texts.get("PERFORMER", b"")),
        )
        for track, (end_s, end_sure) in zip(tracks, _ends(tracks), strict=True)
        if track.audio and track.lost is None and track.start_s is not None
    ]
    return CueFile(name=name, tracks=tuple(audio), listed=sum(track.audio for track in tracks))


def _ends(tracks: Sequence[Track]) -> list[tuple[float | None, bool]]:
    """For each track: where the next one begins, and whether that is its end."""
    ends: list[tuple[float | None, bool]] = []
    end_s: float | None = None
    sure = True
    for track in reversed(tracks):
        ends.append((end_s, sure))
        if track.lost is None:
            end_s, sure = track.start_s, True
        elif track.gap_s is not None and (end_s is None or track.gap_s < end_s):
            end_s, sure = track.gap_s, True
        else:
            sure = False
    return ends[::-1]


# --- which file is meant


def _by_name(beside: Sequence[Offered]) -> Mapping[str, Sequence[Offered]]:
    """The files by their names, and by their names without ending."""
    found: dict[str, list[Offered]] = {}
    for one in beside:
        base = _folded(one.name.rpartition("/")[2])
        for name in {base, f"{_stem(base)}/"}:
            found.setdefault(name, []).append(one)
    return found


def _meant(
    file: CueFile, sheet: CueSheet, by_name: Mapping[str, Sequence[Offered]], path: str | None
) -> tuple[Offered, Link]:
    names = [_folded(file.name)] if file.name else []
    if path is not None and len(sheet.files) == 1:
        # "Album.cue", and also "Album.flac.cue".
        names.append(_folded(_stem(path.rpartition("/")[2])))
    named: Sequence[Offered] = ()
    for name in names:
        named = named or by_name.get(name) or by_name.get(f"{_stem(name)}/") or ()
    if named:
        return _only(named, file), Link.NAMED
    if len(sheet.files) > 1 or not file.tracks:
        raise ValueError(f"no files beside it can be {file.name!r}")
    every = {one.name: one for found in by_name.values() for one in found}.values()
    last_s = file.tracks[-1].start_s
    long_enough = [one for one in every if one.duration_s is None or one.duration_s > last_s]
    return _only(long_enough, file), Link.ALONE


def _only(found: Sequence[Offered], file: CueFile) -> Offered:
    if len(found) != 1:
        raise ValueError(f"{len(found) or 'no'} files beside it can be {file.name!r}")
    return found[0]


def _folded(name: str) -> str:
    # macOS writes accents as characters of their own.
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


# --- the parts


def _parts(file: CueFile, sheet: CueSheet, audio: Offered, link: Link) -> list[Offered]:
    last = file.tracks[-1] if file.tracks else None
    whole_s = audio.duration_s
    if last and whole_s is not None and last.start_s >= whole_s:
        raise ValueError(f"track {last.number} begins beyond the end of {audio.name!r}")
    said_s = sheet.length_s
    if said_s is not None and whole_s is not None and abs(said_s - whole_s) > _SAME_LENGTH_S:
        raise ValueError(f"it is for a file of {said_s:.0f} s, not of {whole_s:.0f} s")
    return [_part(track, sheet, audio, link, file.listed) for track in file.tracks]


def _part(track: CueTrack, sheet: CueSheet, audio: Offered, link: Link, count: int) -> Offered:
    length_s = None
    end_s = track.end_s
    size_bytes = audio.size_bytes // count
    if audio.duration_s is not None:
        # Data behind the audio begins where the file has ended.
        end_s = None if end_s is not None and end_s >= audio.duration_s else end_s
        length_s = (audio.duration_s if end_s is None else end_s) - track.start_s
        size_bytes = round(audio.size_bytes * length_s / audio.duration_s)
    return Offered(
        name=f"{audio.name}#{track.number:02d}",
        size_bytes=size_bytes,
        duration_s=length_s,
        title=track.title,
        disc=sheet.disc,
        number=track.number,
        start_s=track.start_s,
        end_s=end_s,
        end_sure=track.end_sure,
        link=link,
    )


# --- several sheets


def _merged(sheets: Sequence[Sequence[Offered]]) -> list[Offered]:
    """One of the parts of each track; none if they disagree."""
    best = max(_link(found) for found in sheets)
    count = [found for found in sheets if _link(found) is best]
    most = {part.name: part for part in max(count, key=len)}
    others = [part for found in count for part in found]
    if not all(part.name in most and _same_place(part, most[part.name]) for part in others):
        return []
    for part in others:
        if _says_more(part, most[part.name]):
            most[part.name] = part
    return list(most.values())


def _link(found: Sequence[Offered]) -> Link:
    return max((part.link for part in found if part.link is not None), default=Link.ALONE)


def _same_place(one: Offered, other: Offered) -> bool:
    ends = _near(one.end_s, other.end_s) or not (one.end_sure and other.end_sure)
    return _near(one.start_s, other.start_s) and ends


def _near(one_s: float | None, other_s: float | None) -> bool:
    if one_s is None or other_s is None:
        return one_s is other_s
    # A little more than a frame: the times are no exact binary numbers.
    return abs(one_s - other_s) < 1.5 / FRAMES_PER_S


def _says_more(one: Offered, other: Offered) -> bool:
    return (one.end_sure, one.title is not None) > (other.end_sure, other.title is not None)
