"""What a refusal says would make the file accepted, with its numbers."""

from __future__ import annotations

import pytest

from shared.errors import AttemptFailed, CorruptAudio, ErrorType
from shared.remedies import explained

LENGTH = {"rule": "wrong_length", "expected_s": 180.0, "setting_s": 6.0}
SHORT = LENGTH | {"expected_s": 8.0, "decoded_s": 3.0}
FOREIGN = {"rule": "codec_not_allowed", "codec": "ac3", "container": "wav"}


@pytest.mark.parametrize(
    ("evidence", "numbers", "remedy"),
    [
        (
            LENGTH | {"decoded_s": 187.5},
            "187.5 s and 180.0 s differ by 7.5 s, DURATION_TOLERANCE_S allows 6",
            "with 8 it would be accepted",
        ),
        (
            LENGTH | {"decoded_s": 216.0},
            "216.0 s and 180.0 s differ by 36.0 s, DURATION_TOLERANCE_S allows 6",
            "more than a tenth of the track is accepted by no setting",
        ),
        (
            SHORT,
            "3.0 s and 8.0 s differ by 5.0 s, and a track of this length may differ by 1 s",
            "less than DURATION_TOLERANCE_S (6)",
        ),
        (
            LENGTH | {"decoded_s": 181.0, "container_s": 90.0},
            "contradicts itself",
            "no setting accepts that",
        ),
        (
            {"rule": "decode_errors", "decoded_s": 72.9, "container_s": 185.0},
            "the damage is at 1:12 of 3:05",
            "no setting accepts that",
        ),
        (
            {"rule": "truncated", "decoded_s": 5.0, "expected_s": 180.0},
            "the damage is at 0:05 of 3:00",
            "no setting accepts that",
        ),
        (FOREIGN, "the codec ac3 in the container wav", "AUDIO_FORMAT and AUDIO_PLAYABLE"),
        ({"rule": "several_streams"}, "", "a file with one audio stream would be accepted"),
        ({"rule": "not_audio"}, "", "no setting accepts that"),
        ({}, "", "no setting accepts that"),
    ],
)
def test_a_refusal_names_its_remedy(evidence: dict[str, object], numbers: str, remedy: str) -> None:
    """Both lengths and the tolerance in force, the place of the damage, or the format."""
    told = explained(CorruptAudio("why", evidence))
    assert told.startswith("why; ")
    assert numbers in told
    assert remedy in told


def test_a_kept_file_can_be_released() -> None:
    """Also where no setting helps."""
    told = explained(CorruptAudio("why", {"rule": "video", "kept_days": 14.0}))
    assert told == (
        "why; no setting accepts that; an administrator can release the file, which is kept for"
        " 14 days"
    )


def test_a_torrent_that_lacks_the_track_has_its_numbers() -> None:
    """The file that is nearest in length, and how far it is off."""
    files = [{"file": "01.flac", "duration_s": 12.5}, {"file": "02.flac", "duration_s": 60.0}]
    evidence = {"rule": "lacks_track", "files": files, "expected_s": 10.0, "tolerance_s": 2.0}
    told = explained(AttemptFailed(ErrorType.NOT_FOUND, "it lacks it", evidence))
    assert told == (
        "it lacks it; the file nearest in length, 01.flac, is 12.5 s long, the track 10.0 s, and"
        " may differ by 2 s (DURATION_TOLERANCE_S)"
    )


def test_a_message_with_its_remedy_stays_as_it_is() -> None:
    """AUDIO_PLAYABLE=refuse says itself what it does."""
    assert explained(CorruptAudio("why", {"rule": "not_playable"})) == "why"


def test_other_failures_stay_as_they_are() -> None:
    """No file was refused."""
    assert explained(AttemptFailed(ErrorType.STALLED, "no progress")) == "no progress"
