"""Real audio files for tests, and ways to break them."""

from __future__ import annotations

import random
from pathlib import Path

from services.local.audio import ToneCodec, make_tone
from shared.media.tools import find_tools

# A tone is made once in the life of a process and copied from then on: nearly every test has one.
_made: dict[tuple[object, ...], bytes] = {}
_KEPT_BYTES = 2 * 1024 * 1024


def make_audio(
    path: Path,
    *,
    seconds: float,
    codec: ToneCodec = "flac",
    frequency: int = 440,
    cover: bool = False,
) -> Path:
    """Write a tone of exactly `seconds` to `path` and return it; the name does not matter."""
    tools = find_tools()
    key = (seconds, codec, frequency, cover, tools)
    if (made := _made.get(key)) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made)
        return path
    make_tone(path, seconds=seconds, codec=codec, frequency=frequency, cover=cover, tools=tools)
    if path.stat().st_size <= _KEPT_BYTES:
        _made[key] = path.read_bytes()
    return path


def cut(path: Path, source: Path, *, keep: float = 0.6) -> Path:
    """A copy that ends early, as a broken transfer leaves it."""
    whole = source.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    return path


def overwrite(path: Path, source: Path, *, size_bytes: int = 20_000) -> Path:
    """A copy with a run of noise in its middle; the length stays."""
    damaged = bytearray(source.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + size_bytes] = random.Random(7).randbytes(size_bytes)
    path.write_bytes(damaged)
    return path
