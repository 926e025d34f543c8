"""The two time formats of the real server, from nanoseconds since 1970."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now_ns() -> int:
    """The current time; the stand-in's only call of the wall clock."""
    return time.time_ns()


def offset_form(moment_ns: int) -> str:
    """As in `created_at`: nine digits and `+00:00`."""
    return f"{_seconds(moment_ns)}.{moment_ns % 10**9:09d}+00:00"


def zulu_form(moment_ns: int) -> str:
    """As in a state: 0, 3, 6 or 9 decimals, the fewest that are exact, and `Z`."""
    digits = f"{moment_ns % 10**9:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{_seconds(moment_ns)}{'.' if digits else ''}{digits}Z"


def zulu_now() -> str:
    """The current time in `zulu_form`."""
    return zulu_form(now_ns())


def _seconds(moment_ns: int) -> str:
    return datetime.fromtimestamp(moment_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
