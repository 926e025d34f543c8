"""Where the samples of a WAV file are, and whether it says how many: one out of a pipe does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import BinaryIO

# What programs write that cannot go back to their header: 0, or about the largest number.
_UNKNOWN_FROM = 0xFFFF_0000
_UNKNOWN = (0, 0x7FFF_FFFF, 0x7FFF_F000)
# Kind, samples a second, bytes of one sample of all channels.
_FORM = Struct("<H2xI4xH2x")
# Plain samples: integers, floats, and what a further field tells.
_PLAIN = (1, 3, 0xFFFE)
# Files have about five before their samples.
_MOST_CHUNKS = 128


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Of plain ones, where the last whole one ends, in bytes, and how long the stated ones are."""

    stated: bool
    end: int | None = None
    seconds: float | None = None


def samples_of(path: Path, start: int) -> Samples | None:
    """The samples of a file that begins at `start`; None where none are found. Blocks."""
    with path.open("rb") as file:
        whole = file.seek(0, 2)
        file.seek(start + 12)
        return _samples(file, whole)


def _samples(file: BinaryIO, whole: int) -> Samples | None:
    form = b""
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        size = int.from_bytes(head[4:], "little")
        match head[:4]:
            case b"" | b"ds64":  # the real sizes, beyond 4 GiB
                return None
            case b"fmt ":
                form = file.read(min(size, _FORM.size))
                file.seek(size - len(form) + size % 2, 1)
            case b"data":
                return _measured(size, file.tell(), whole, form)
            case _:
                file.seek(size + size % 2, 1)
    return None


def _measured(size: int, begin: int, whole: int, form: bytes) -> Samples:
    stated = size not in _UNKNOWN and size < _UNKNOWN_FROM
    kind, rate_hz, block = _FORM.unpack(form) if len(form) == _FORM.size else (0, 0, 0)
    if kind not in _PLAIN or not rate_hz or not block:
        return Samples(stated=stated)
    there = min(size, whole - begin) if stated else whole - begin
    return Samples(
        stated=stated,
        end=begin + there // block * block,
        seconds=size // block / rate_hz if stated else None,
    )
