"""The two ways in which the real server writes a moment, from nanoseconds since 1970."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now_ns() -> int:
    """The present moment; the only place where the stand-in asks for the time of day."""
    return time.time_ns()


def offset_form(moment_ns: int) -> str:
    """As in `created_at`: nine digits and `+00:00`."""
    return f"{_seconds(moment_ns)}.{moment_ns % 10**9:09d}+00:00"


def zulu_form(moment_ns: int) -> str:
    """As inside a state: no, three, six or nine digits, whichever is exact, and `Z`."""
    digits = f"{moment_ns % 10**9:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{_seconds(moment_ns)}{'.' if digits else ''}{digits}Z"


def zulu_now() -> str:
    """The present moment in `zulu_form`."""
    return zulu_form(now_ns())


def _seconds(moment_ns: int) -> str:
    return datetime.fromtimestamp(moment_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
