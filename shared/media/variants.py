"""Formats that ffprobe takes for one, and of which browsers play one only."""

from __future__ import annotations

from pathlib import Path

from shared.media.formats import BY_NAME, HYBRID, Container, of_probed

# A WavPack block: mark, size, version, index and count in 24 bytes, then the flags.
_WAVPACK = b"wvpk"
_WAVPACK_FLAGS = slice(24, 28)
_WAVPACK_HYBRID = 1 << 3
# A WAV file for more than 4 GiB, whatever its size.
_RF64 = b"RF64"


def variant_of(path: Path, probed: str, codec: str) -> tuple[Container | None, str]:
    """The container, if it is taken, and the codec of a file that ffprobe describes so. Blocks."""
    row = of_probed(probed)
    if row is None or row.name not in ("wav", "wavpack"):
        return row, codec
    with path.open("rb") as file:
        head = file.read(_WAVPACK_FLAGS.stop)
    if head.startswith(_RF64):
        return BY_NAME["rf64"], codec
    flags = int.from_bytes(head[_WAVPACK_FLAGS], "little")
    if head.startswith(_WAVPACK) and flags & _WAVPACK_HYBRID:
        return row, HYBRID
    return row, codec
