"""How far a measured length may be from the one that the catalog has."""

from __future__ import annotations

# Of a short track the setting's seconds would be most of it: 3 s are no interlude of 8 s.
_SHARE = 0.1
_LEAST_S = 1.0


def tolerance_of(expected_ms: int | None, setting_s: float) -> float:
    """`setting_s`, of a short track a tenth of its length, but at least a second, in seconds."""
    if expected_ms is None:
        return setting_s
    return min(setting_s, max(_LEAST_S, _SHARE * expected_ms / 1000))
