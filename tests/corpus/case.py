"""A file of the corpus, and the right verdict on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Case:
    """One file.

    `make` writes the file into the folder and returns its path. `expected_ms` is the catalog's
    length. `verdict` is "whole", or the rule that refuses the file. `since` is the first release of
    ffmpeg of which that is true; with older ones the file is refused by any rule.
    """

    name: str
    make: Callable[[Path], Path]
    expected_ms: int | None
    verdict: str
    since: tuple[int, int] = (5, 1)
