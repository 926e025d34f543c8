"""One file that the verification has to judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file, the catalog's length for it, and the verdict that is right."""

    name: str
    make: Callable[[Path], Path]  # writes the file into this folder
    expected_ms: int | None
    verdict: str  # "whole" or the rule that refuses it
