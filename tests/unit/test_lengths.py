"""How far a length may be from the catalog's."""

from __future__ import annotations

import pytest

from shared.lengths import tolerance_of
from shared.matching.assign import assign
from shared.matching.model import Offered
from shared.tracks import CatalogTrack


@pytest.mark.parametrize(
    ("expected_ms", "setting_s", "tolerance_s"),
    [
        (240_000, 6.0, 6.0),
        (60_000, 6.0, 6.0),
        (20_000, 6.0, 2.0),
        (8_000, 6.0, 1.0),
        (1_000, 6.0, 1.0),
        (20_000, 0.5, 0.5),
        (1_000, 0.0, 0.0),
        (None, 6.0, 6.0),
    ],
)
def test_tolerance(expected_ms: int | None, setting_s: float, tolerance_s: float) -> None:
    """The setting, a tenth of a short track, at least a second; never more than the setting."""
    assert tolerance_of(expected_ms, setting_s) == pytest.approx(tolerance_s)


@pytest.mark.parametrize(("measured_s", "sure"), [(3.0, False), (7.2, True), (9.5, False)])
def test_a_short_file_is_matched_by_the_same_tolerance(measured_s: float, sure: bool) -> None:
    """A clip of 3 s is no interlude of 8 s, whatever its name says."""
    track = CatalogTrack(id="t1", title="Interlude", number=1, duration_ms=8000)
    offered = [Offered(name="A/01 Interlude.flac", size_bytes=1000, duration_s=measured_s)]
    result = assign([track], ["t1"], offered, tolerance_s=6)
    assert ("t1" in result.sure) is sure
