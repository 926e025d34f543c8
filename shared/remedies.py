"""What would have made a refused file accepted, with the numbers of the refusal.

Keyed by the rule of verification in `CorruptAudio.evidence["rule"]`. The lengths are those of the
evidence: `expected_s` of the catalog, `decoded_s` and `container_s` of the file, `setting_s`, which
is DURATION_TOLERANCE_S, and `tolerance_s`, if another one was in force. `kept_days` is there if the
file is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

from shared.errors import AttemptFailed, ErrorType
from shared.lengths import tolerance_of

Evidence: TypeAlias = Mapping[str, object]

# For an item whose torrent has several files that may be it.
CHOICE = (
    "see the candidates in error_evidence, then approve the item with the name of its file, or"
    " reject it"
)
# The rule of a torrent in which no file is the track.
LACKS_TRACK = "lacks_track"
_NO_SETTING = "no setting accepts that"


def explained(failure: AttemptFailed) -> str:
    """The message of the failure, followed by what would make its file accepted."""
    rule = str(failure.evidence.get("rule"))
    if failure.error_type is not ErrorType.CORRUPTION and rule != LACKS_TRACK:
        return failure.message
    remedy = _REMEDIES.get(rule, _none)(failure.evidence)
    return "; ".join(filter(None, [failure.message, remedy, *_kept(failure.evidence)]))


def clock(seconds: object) -> str | None:
    """A position as m:ss; None without a number."""
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1e6:
        return None
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def damaged_at_s(evidence: Evidence) -> float | None:
    """Where the first damage is, in seconds; a decode stops there."""
    return _number(evidence, "damaged_at_s") or _number(evidence, "decoded_s")


def tolerance_s(evidence: Evidence) -> float | None:
    """How far the length might have been off, in seconds; None where it is not known."""
    stated = _number(evidence, "tolerance_s")
    setting, expected = _number(evidence, "setting_s"), _number(evidence, "expected_s")
    if stated is not None or setting is None:
        return stated
    return tolerance_of(None if expected is None else round(expected * 1000), setting)


def _length(evidence: Evidence) -> str:
    expected = _number(evidence, "expected_s")
    heard = _number(evidence, "decoded_s") or _number(evidence, "container_s")
    tolerance, setting = tolerance_s(evidence), _number(evidence, "setting_s")
    if expected is None or heard is None or tolerance is None:
        return _NO_SETTING
    off = abs(heard - expected)
    if off <= tolerance:
        return f"the file contradicts itself: {_NO_SETTING}"
    told = f"{heard:.1f} s and {expected:.1f} s differ by {off:.1f} s"
    if setting is not None and tolerance < setting:
        return (
            f"{told}, and a track of this length may differ by {tolerance:g} s, less than"
            f" DURATION_TOLERANCE_S ({setting:g})"
        )
    allows = f"{told}, DURATION_TOLERANCE_S allows {tolerance:g}"
    if off > tolerance_of(round(expected * 1000), off):
        return f"{allows}; more than a tenth of the track is accepted by no setting"
    return f"{allows}: with {math.ceil(off)} it would be accepted"


def _damage(evidence: Evidence) -> str:
    at, whole = clock(damaged_at_s(evidence)), clock(_whole_s(evidence))
    if at is None:
        return _NO_SETTING
    of = f" of {whole}" if whole else ""
    return f"the damage is at {at}{of}: {_NO_SETTING}"


def _whole_s(evidence: Evidence) -> float | None:
    return _number(evidence, "container_s") or _number(evidence, "expected_s")


def _format(evidence: Evidence) -> str:
    codec, container = (evidence.get(name) or "unknown" for name in ("codec", "container"))
    return (
        f"which formats are taken follows from AUDIO_FORMAT and AUDIO_PLAYABLE, and none takes"
        f" the codec {codec} in the container {container}"
    )


def _streams(_: Evidence) -> str:
    return "a file with one audio stream would be accepted"


def _in_the_message(_: Evidence) -> str:
    return ""


def _none(_: Evidence) -> str:
    return _NO_SETTING


def _lacks(evidence: Evidence) -> str:
    """The file whose length is nearest, as names that differ do not say which one it may be."""
    expected, tolerance = _number(evidence, "expected_s"), tolerance_s(evidence)
    files = evidence.get("files")
    measured = [
        (file.get("file"), length)
        for file in (files if isinstance(files, list) else [])
        if (length := _number(file, "duration_s")) is not None
    ]
    if expected is None or tolerance is None or not measured:
        return "none of its files is called so"
    called_so = [each for each in measured if each[0] == evidence.get("file")]
    name, length = min(called_so or measured, key=lambda each: abs(each[1] - expected))
    which = "that is called so" if called_so else "nearest in length"
    return (
        f"the file {which}, {str(name)[:200]}, is {length:.1f} s long, the track"
        f" {expected:.1f} s, and may differ by {tolerance:g} s (DURATION_TOLERANCE_S)"
    )


_REMEDIES: Mapping[str, Callable[[Evidence], str]] = {
    "wrong_length": _length,
    "decode_errors": _damage,
    "truncated": _damage,
    "codec_not_allowed": _format,
    "several_streams": _streams,
    "not_playable": _in_the_message,
    LACKS_TRACK: _lacks,
}


def _kept(evidence: Evidence) -> list[str]:
    days = _number(evidence, "kept_days")
    if days is None:
        return []
    return [f"an administrator can release the file, which is kept for {days:g} days"]


def _number(evidence: Evidence, name: str) -> float | None:
    value = evidence.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
