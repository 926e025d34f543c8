"""A file of the corpus, and the right verdict on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Case:
    """One file. The verdict is that of every supported ffmpeg, or of those that `only` names.

    `make` writes the file into the folder and returns its path. `expected_ms` is the catalog's
    length. `verdict` is "whole", or the rule that refuses the file.
    """

    name: str
    make: Callable[[Path], Path]
    expected_ms: int | None
    verdict: str
