"""Time that counts against a download: only that between two reads of it that succeeded.

The times of a row (`progressed_at`, `missing_at`, …) are moved on by what does not count, so that
their age is the time in which the download was seen so. An outage of ours, of Torrentino or of
PostgreSQL is a gap between two reads, and so is a clock that jumps.
"""

from __future__ import annotations

# A longer gap between two reads is no watched time; a busy poller reads this often.
_LONGEST_GAP_INTERVALS = 4
LONGEST_GAP_LEAST_S = 5.0


def longest_gap_s(poll_interval_s: float) -> float:
    """Seconds between two reads up to which all of the time between them counts."""
    return max(LONGEST_GAP_LEAST_S, _LONGEST_GAP_INTERVALS * poll_interval_s)


def watched(column: str, *, gap: str, interval: str) -> str:
    """SQL: a time of a row of `tickets`, moved on by what does not count since `looked_at`.

    `gap` and `interval` are the parameters `longest_gap_s` and the poll interval: of a longer gap,
    or one in which the clock went back, one interval counts.
    """
    return f"""{column} + CASE
           WHEN looked_at IS NULL
             OR now() - looked_at BETWEEN interval '0' AND make_interval(secs => {gap})
           THEN interval '0'
           ELSE now() - looked_at - make_interval(secs => {interval}) END"""
