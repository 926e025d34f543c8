"""The last words of an item: what was tried for it, in plain words."""

from __future__ import annotations

import pytest

from shared.db.refusals import summary, told
from shared.errors import AttemptFailed, CorruptAudio, ErrorType


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        ({"rule": "decode_errors", "decoded_s": 72.9}, "damaged at 1:12"),
        ({"rule": "truncated", "decoded_s": 5.0}, "ends at 0:05"),
        (
            {"rule": "wrong_length", "decoded_s": 191, "expected_s": 180.0},
            "3:11 long instead of 3:00",
        ),
        (
            {"rule": "wrong_length", "container_s": 3700, "expected_s": 60, "tolerance_s": 6.0},
            "61:40 long instead of 1:00 (6 s allowed)",
        ),
        ({"rule": "not_audio"}, "no audio"),
        ({"rule": "decode_errors", "decoded_s": None}, "damaged"),
        ({}, "gave broken audio"),
    ],
)
def test_a_refusal_says_where(evidence: dict[str, object], words: str) -> None:
    """Times are m:ss, as far as they are known."""
    assert told(CorruptAudio("the audio is damaged: [flac @ 0x5] invalid", evidence)) == words


def test_other_failures_have_words_too() -> None:
    """A torrent that lacks the track, and one that made no progress."""
    assert told(AttemptFailed(ErrorType.NOT_FOUND, "…")) == "lacks the track"
    assert told(AttemptFailed(ErrorType.STALLED, "…")) == "did not arrive"


def test_refusals_are_summed_up_within_bounds() -> None:
    """Like ones together, most frequent first, and at most four kinds."""
    assert summary(["lacks the track"]) == "1 torrent tried: lacks the track"
    two = ["damaged at 1:12", "lacks the track"]
    assert summary(two) == "2 torrents tried: one damaged at 1:12, one lacks the track"
    assert summary([*two, "lacks the track"]) == (
        "3 torrents tried: two lack the track, one damaged at 1:12"
    )
    many = summary([f"damaged at 1:{second:02d}" for second in range(40)])
    assert many.endswith("one damaged at 1:03, 36 for other reasons")
