"""Digital silence: a track in every codec, however few bytes it takes."""

from __future__ import annotations

from collections.abc import Sequence

from tests.corpus.case import Case
from tests.corpus.sounds import silence, written

_OPTIONS = {
    "FLAC": ("-c:a", "flac", "-f", "flac"),
    "FLAC with the largest blocks": ("-c:a", "flac", "-frame_size", "65535", "-f", "flac"),
    "MP3 of the lowest bit rate": ("-c:a", "libmp3lame", "-b:a", "32k", "-f", "mp3"),
    "VBR MP3": ("-c:a", "libmp3lame", "-q:a", "9", "-f", "mp3"),
    "Opus": ("-c:a", "libopus", "-b:a", "6k", "-ar", "48000", "-f", "ogg"),
    "Vorbis": ("-c:a", "vorbis", "-strict", "-2", "-f", "ogg"),
    "AAC in MP4": ("-c:a", "aac", "-f", "ipod"),
    "raw AAC": ("-c:a", "aac", "-f", "adts"),
    "ALAC": ("-c:a", "alac", "-f", "ipod"),
    "WAV": ("-c:a", "pcm_s16le", "-f", "wav"),
    "WMA": ("-c:a", "wmav2", "-f", "asf"),
}

CASES: Sequence[Case] = [
    *(
        Case(
            name=f"silence of 6 s in {name}",
            make=written(lambda o=options: silence(*o)),  # type: ignore[misc]
            expected_ms=6000,
            verdict="whole",
        )
        for name, options in _OPTIONS.items()
    ),
    Case(
        name="silence of 1 s in FLAC",
        make=written(lambda: silence("-c:a", "flac", "-f", "flac", seconds=1)),
        expected_ms=1000,
        verdict="whole",
    ),
]
