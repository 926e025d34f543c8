"""Which of several files with one name is taken.

Where all that is known leaves two, they are taken for copies of one recording if they lie beside
each other in two formats, or if their decoded audio is the same. Of copies lossless is taken before
lossy. Of others none is: an instrumental has the name, the length and the format of the song.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from shared.matching.evidence import Album, Pair
from shared.matching.titles import fold

# The loudness of `Offered.loudness` is the root mean square of so many seconds of audio, mixed to
# one channel.
STEP_S = 0.025

# A file whose length is nearer to the catalog's by so many seconds is preferred.
_NEARER_S = 1.0
# Encoders add up to some frames of silence.
_PADDING_S = 0.25
# A folder with this part of another's tracks is not the album's.
_LEAST_OF_ALBUM = 0.5
_LEAST_TRACKS = 3
_CD_RATES_HZ = (44_100, 48_000)

# Two loudness curves are laid over each other at most so far apart, by their middle.
_MOST_SHIFT_STEPS = 80
_MIDDLE_STEPS = 1600
# They are the same if nearly all of their windows are as loud, but for one gain; quiet ones do not
# count, as lossy encoders change them.
_WINDOW_STEPS = 8
_LEAST_WINDOWS = 5
_QUIET = 10 ** (-40 / 20)
_MOST_RATIO = 10 ** (1.5 / 20)
_LEAST_SAME = 0.97
# One steady tone is as loud as another, and proves nothing.
_MOST_STEADY = 0.9


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The file to take; None where several may be it. `to_compare`: not compared by audio yet."""

    taken: Pair | None
    rivals: tuple[str, ...] = ()
    to_compare: tuple[str, ...] = ()


def choose(album: Album, pairs: Sequence[Pair]) -> Choice:
    """The best of the files that may be one track by their names; their order does not matter."""
    left = sorted(pairs, key=lambda pair: pair.file.name)
    for preferred in (_called_so, _beside_album, _of_album, _nearest, _in_layout):
        left = preferred(album, left)
    best = max(left, key=_quality)
    rivals = [pair for pair in left if pair is not best and not _paired(best, pair)]
    known = [pair for pair in rivals if _compared(best, pair) is not None]
    unknown = tuple(pair.file.name for pair in rivals if pair not in known)
    differ = tuple(pair.file.name for pair in known if not _compared(best, pair))
    if not unknown and not differ:
        return Choice(taken=best)
    return Choice(
        taken=None,
        rivals=(best.file.name, *unknown, *differ),
        to_compare=(best.file.name, *unknown) if unknown else (),
    )


def same_audio(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two loudness curves are of the same recording, but for gain and a shift in time."""
    if len(one) < _WINDOW_STEPS * _LEAST_WINDOWS or len(other) < _WINDOW_STEPS * _LEAST_WINDOWS:
        return False
    if not max(one) or not max(other):
        return max(one) == max(other)
    shift = _shift(one, other)
    left, right = one[max(0, -shift) :], other[max(0, shift) :]
    windows = [
        (sum(left[at : at + _WINDOW_STEPS]), sum(right[at : at + _WINDOW_STEPS]))
        for at in range(0, min(len(left), len(right)) - _WINDOW_STEPS + 1, _WINDOW_STEPS)
    ]
    loud_left = max(one) * _WINDOW_STEPS * _QUIET
    loud_right = max(other) * _WINDOW_STEPS * _QUIET
    loud = [(a, b) for a, b in windows if a > loud_left or b > loud_right]
    if len(loud) < _LEAST_WINDOWS or _alike([a for a, _ in loud]) > _MOST_STEADY:
        return False
    return _alike([a / b if a and b else 0.0 for a, b in loud]) >= _LEAST_SAME


def _alike(values: Sequence[float]) -> float:
    """The part of the values that are about as large as their median."""
    middle = median(values) or 1.0
    return sum(1 / _MOST_RATIO <= value / middle <= _MOST_RATIO for value in values) / len(values)


def _shift(one: Sequence[float], other: Sequence[float]) -> int:
    """How many steps later the same is in `other`."""
    at = max(0, min(len(one), len(other)) // 2 - _MIDDLE_STEPS // 2)
    middle = one[at : at + _MIDDLE_STEPS]
    mean = sum(middle) / len(middle)
    around = [value - mean for value in middle]

    def product(shift: int) -> float:
        if at + shift < 0:
            return 0.0
        beside = other[at + shift : at + shift + len(around)]
        total = sum(a * b for a, b in zip(around, beside, strict=False))
        # Without the norm a louder part would attract.
        return total / math.sqrt(sum(b * b for b in beside) or 1.0)

    return max(range(-_MOST_SHIFT_STEPS, _MOST_SHIFT_STEPS + 1), key=product)


def _preferred(pairs: list[Pair], wanted: Callable[[Pair], bool]) -> list[Pair]:
    return [pair for pair in pairs if wanted(pair)] or pairs


def _called_so(album: Album, pairs: list[Pair]) -> list[Pair]:
    """Those that say "(Live)" where the track does, before those that need not."""
    (track,) = {pair.track for pair in pairs}
    marks = album.titles[track.id].marks - album.implied
    return _preferred(pairs, lambda pair: marks <= pair.file.marks)


def _beside_album(_album: Album, pairs: list[Pair]) -> list[Pair]:
    """Without those in folders of bonus tracks, samplers and singles."""
    return _preferred(pairs, lambda pair: not pair.file.folder.aside)


def _of_album(album: Album, pairs: list[Pair]) -> list[Pair]:
    """Without those in folders that have few of the album's tracks: other albums."""
    has: Mapping[str, int] = {pair.file.name: album.coverage(pair.file) for pair in pairs}
    most = max(has.values())
    if most < _LEAST_TRACKS:
        return pairs
    return [pair for pair in pairs if has[pair.file.name] > _LEAST_OF_ALBUM * most]


def _nearest(_album: Album, pairs: list[Pair]) -> list[Pair]:
    """Those whose length is nearest to the catalog's, and those that are not measured.

    Of two editions or formats with different lengths only the nearest is left: the other is no
    copy of it.
    """
    known = [pair for pair in pairs if pair.off_s is not None]
    if not known:
        return pairs
    nearest = min(known, key=lambda pair: pair.off_s or 0.0)

    def near(pair: Pair) -> bool:
        if pair.off_s is None or nearest.off_s is None:
            return True
        if _beside(nearest, pair):
            return _same_length(nearest, pair)
        return pair.off_s <= nearest.off_s + _NEARER_S

    return [pair for pair in pairs if near(pair)]


def _in_layout(album: Album, pairs: list[Pair]) -> list[Pair]:
    """Stereo, unless the catalog names another layout."""
    (track,) = {pair.track for pair in pairs}
    marks = album.titles[track.id].marks | album.implied

    def wanted(pair: Pair) -> bool:
        channels = pair.file.offered.channels
        if channels is None:
            return True
        if "surround" in marks:
            return channels > 2
        return channels == (1 if "mono" in marks else 2)

    return _preferred(pairs, wanted)


def _quality(pair: Pair) -> tuple[bool, bool, str]:
    """Lossless, at a CD's rate. The size says nothing of a recording."""
    rate_hz = pair.file.offered.sample_rate_hz
    return pair.file.lossless, rate_hz is None or rate_hz in _CD_RATES_HZ, pair.file.name


def _paired(one: Pair, other: Pair) -> bool:
    """Whether they are copies by their names and lengths."""
    return _beside(one, other) and _same_length(one, other)


def _beside(one: Pair, other: Pair) -> bool:
    """Whether their names tell only two formats or two editions apart."""
    if one.file.folder.key != other.file.folder.key:
        return False
    in_two_formats = one.file.lossless is not other.file.lossless
    return in_two_formats or _stem(one.file.name) == _stem(other.file.name)


def _same_length(one: Pair, other: Pair) -> bool:
    left, right = one.file.offered.duration_s, other.file.offered.duration_s
    return left is None or right is None or abs(left - right) <= _PADDING_S


def _stem(name: str) -> str:
    return fold(name.rpartition("/")[2].rpartition(".")[0])


def _compared(one: Pair, other: Pair) -> bool | None:
    """Whether their decoded audio is the same; None: it is not known."""
    left, right = one.file.offered.loudness, other.file.offered.loudness
    return None if left is None or right is None else same_audio(left, right)
