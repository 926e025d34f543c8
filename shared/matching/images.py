"""Images, the files that hold several tracks: which sheet is whose, and what speaks against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.lengths import tolerance_of
from shared.matching.cue import CueSheet, agreed, embedded_parts, parts
from shared.matching.model import Assignment, Doubt, Link, Offered
from shared.matching.titles import score, title_of
from shared.tracks import CatalogTrack

_Found = dict[str, list[Offered]]


@dataclass(frozen=True, kw_only=True)
class Split:
    """The parts of all images, and why sheets are not used, by their paths."""

    parts: tuple[Offered, ...]
    unused: Mapping[str, str]


def split(
    sheets: Mapping[str, CueSheet],
    embedded: Mapping[str, Sequence[CueSheet]],
    offered: Sequence[Offered],
) -> Split:
    """The parts that sheets name of the offered files.

    `sheets` are those beside the files, by their paths; `embedded` are those in the files, by the
    names of these. A file that a sheet clearly means is not meant by a sheet that names none.
    """
    found, unused = _inside(embedded, offered)
    beside, refused = _beside(sheets, offered)
    clear = {path: of for path, of in beside.items() if of[0].link is Link.NAMED}
    taken = {part.file_name for of in (*found.values(), *clear.values()) for part in of}
    others = {path: sheet for path, sheet in sheets.items() if path not in clear}
    left, still_refused = _beside(others, [one for one in offered if one.name not in taken])
    # What was refused at first says more: "2 files can be it", and not "none is left".
    unused |= {path: refused.get(path, why) for path, why in still_refused.items()}
    result = agreed(found | clear | left)
    used = {part.file_name for part in result}
    for path, of in (found | clear | left).items():
        if of[0].file_name not in used:
            unused[path] = "sheets of one file contradict each other"
    return Split(parts=tuple(result), unused=unused)


def doubted(
    result: Assignment,
    parts_: Sequence[Offered],
    tracks: Sequence[CatalogTrack],
    *,
    tolerance_s: float,
) -> Assignment:
    """`result`, with a doubt for each track whose part may be cut at the wrong place.

    All lengths but the last one are the sheet's own word: that of the last part alone shows whether
    sheet and file belong together. An embedded sheet is that of its file.
    """
    reasons = _reasons(parts_, tracks, tolerance_s)
    last_ones = [of[-1] for name, of in _by_file(parts_).items() if name in reasons]
    by_id = {track.id: track for track in tracks}
    possible = dict(result.sure)
    # Not that the file lacks it: with a hidden track behind it, it is longer than the catalog says.
    for track_id in result.missing & by_id.keys():
        for last in last_ones:
            if _may_be(last, by_id[track_id]):
                possible[track_id] = last
    doubts = {
        track_id: Doubt(reason=why, candidates=(_shown(part, by_id[track_id]),))
        for track_id, part in possible.items()
        if (why := _why(part, by_id[track_id], reasons)) is not None
    }
    return Assignment(
        sure={one: part for one, part in result.sure.items() if one not in doubts},
        doubtful={**result.doubtful, **doubts},
        missing=result.missing - doubts.keys(),
    )


def contradicted(
    parts_: Sequence[Offered], tracks: Sequence[CatalogTrack], *, tolerance_s: float
) -> frozenset[str]:
    """The files that a sheet does not name, and whose length it contradicts."""
    return frozenset(
        name
        for name, of in _by_file(parts_).items()
        if of[0].link is Link.ALONE and _off_s(of[-1], tracks, tolerance_s)
    )


def _inside(
    embedded: Mapping[str, Sequence[CueSheet]], offered: Sequence[Offered]
) -> tuple[_Found, dict[str, str]]:
    found: _Found = {}
    unused: dict[str, str] = {}
    for one in offered:
        for place, sheet in enumerate(embedded.get(one.name, ())):
            try:
                found[f"{one.name}/{place}"] = embedded_parts(sheet, one)
            except ValueError as refusal:
                unused[one.name] = str(refusal)
    return found, unused


def _beside(
    sheets: Mapping[str, CueSheet], offered: Sequence[Offered]
) -> tuple[_Found, dict[str, str]]:
    folders: _Found = {}
    for one in offered:
        folders.setdefault(_folder(one.name), []).append(one)
    found: _Found = {}
    unused: dict[str, str] = {}
    for path, sheet in sheets.items():
        try:
            found[path] = parts(sheet, folders.get(_folder(path), []), path=path)
        except ValueError as refusal:
            unused[path] = str(refusal)
    return found, unused


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _by_file(parts_: Sequence[Offered]) -> _Found:
    found: _Found = {}
    for part in parts_:
        found.setdefault(part.file_name, []).append(part)
    return found


def _reasons(
    parts_: Sequence[Offered], tracks: Sequence[CatalogTrack], tolerance_s: float
) -> Mapping[str, str]:
    """Why a sheet may not be that of its file, by the file's name."""
    reasons = {}
    for name, of in _by_file(parts_).items():
        last = of[-1]
        off_s = _off_s(last, tracks, tolerance_s)
        if last.link is Link.EMBEDDED:
            continue
        if off_s:
            reasons[name] = (
                f"the last part is {last.duration_s:.0f} s long, {off_s:.0f} s off the catalog:"
                " the CUE sheet may be that of another file"
            )
        elif off_s is None and last.link is Link.ALONE:
            reasons[name] = (
                "the CUE sheet names another file, and no length of the catalog shows that it is"
                " that of this one"
            )
    return reasons


def _off_s(last: Offered, tracks: Sequence[CatalogTrack], tolerance_s: float) -> float | None:
    """How far the last part is from the catalog's length, beyond the tolerance; 0.0 within it.

    None: the part does not go to the file's end, or the catalog has no length for it.
    """
    if last.end_s is not None or last.duration_s is None:
        return None
    least_s = None
    for track in tracks:
        if track.duration_ms is not None and _may_be(last, track):
            off_s = abs(track.duration_ms / 1000 - last.duration_s)
            if off_s <= tolerance_of(track.duration_ms, tolerance_s):
                return 0.0
            least_s = off_s if least_s is None else min(least_s, off_s)
    return least_s


def _may_be(part: Offered, track: CatalogTrack) -> bool:
    if part.title and title_of(part.title).core == title_of(track.title).core:
        return True
    same_disc = part.disc is None or part.disc == (track.disc or 1)
    return part.number == track.number and same_disc


def _why(part: Offered, track: CatalogTrack, reasons: Mapping[str, str]) -> str | None:
    if part.start_s is None:
        return None
    if not part.end_sure and track.duration_ms is None:
        return "the CUE sheet does not say where the part ends, and the catalog not how long it is"
    return reasons.get(part.file_name)


def _shown(part: Offered, track: CatalogTrack) -> Mapping[str, object]:
    title = part.title and title_of(part.title)
    return {
        "file": part.name,
        "duration_s": part.duration_s,
        "title_score": score(title_of(track.title), title) if title else 0,
        "why": "a part of the file, by the CUE sheet",
    }
