"""What a WavPack file says of itself that ffprobe does not report."""

from __future__ import annotations

from pathlib import Path

# A block: mark, size, version, index and count in 24 bytes, then the flags.
_HEADER = b"wvpk"
_FLAGS = slice(24, 28)
_HYBRID = 1 << 3


def is_hybrid(path: Path) -> bool:
    """Whether it is lossy by itself: the rest is in a second file, which is not read. Blocks."""
    with path.open("rb") as file:
        block = file.read(_FLAGS.stop)
    flags = int.from_bytes(block[_FLAGS], "little")
    return block.startswith(_HEADER) and bool(flags & _HYBRID)
