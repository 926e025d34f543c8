"""Whether a WAV file says how long it is: one out of a pipe does not."""

from __future__ import annotations

from pathlib import Path

# What programs write that cannot go back to their header.
_UNKNOWN = (0, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x7FFF_F000)
_CHUNK_BYTES = 8
# Files have about five before their samples.
_MOST_CHUNKS = 128


def states_its_length(path: Path, start: int) -> bool:
    """False if the chunk of samples has a size that means none. Blocks.

    `start`: where the file begins, behind a tag.
    """
    with path.open("rb") as file:
        file.seek(start + 12)
        for _ in range(_MOST_CHUNKS):
            head = file.read(_CHUNK_BYTES)
            if len(head) < _CHUNK_BYTES:
                break
            size = int.from_bytes(head[4:], "little")
            if head.startswith(b"ds64"):
                return True  # the real sizes, beyond 4 GiB
            if head.startswith(b"data"):
                return size not in _UNKNOWN and size < 0xFFFF_FF00
            file.seek(size + size % 2, 1)
    return True
