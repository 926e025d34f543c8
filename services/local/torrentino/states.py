"""The 14 states of a ticket, as the JSON that the real server writes (reference, 2.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from services.local.torrentino.timestamps import zulu_form, zulu_now

State: TypeAlias = Mapping[str, object]

STATE_TYPES = (
    "pending",
    "acquiring",
    "acquisition_failed",
    "needs_approval",
    "auto_approved",
    "approved",
    "rejected",
    "downloading",
    "converting",
    "placing",
    "completed",
    "pending_retry",
    "failed",
    "cancelled",
)
TERMINAL = frozenset({"completed", "failed", "cancelled", "rejected"})
RETRYABLE = frozenset({"failed", "acquisition_failed", "rejected", "cancelled"})
PENDING: State = {"type": "pending"}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One search result that can serve a ticket."""

    title: str
    info_hash: str
    size_bytes: int
    seeders: int
    score: float
    file_mappings: Sequence[Mapping[str, object]] = ()

    def selected(self) -> dict[str, object]:
        """The form in `auto_approved`, `approved` and `downloading`."""
        shown: dict[str, object] = {
            "title": self.title,
            "info_hash": self.info_hash,
            "magnet_uri": magnet(self.info_hash),
            "size_bytes": self.size_bytes,
            "score": self.score,
        }
        if self.file_mappings:
            shown["file_mappings"] = list(self.file_mappings)
        return shown

    def summary(self) -> dict[str, object]:
        """The form in `needs_approval`."""
        return {
            "title": self.title,
            "info_hash": self.info_hash,
            "size_bytes": self.size_bytes,
            "seeders": self.seeders,
            "score": self.score,
            "reasoning": "Keyword match on title",
        }


def magnet(info_hash: str) -> str:
    """The link in a ticket's state; empty for a torrent without a hash."""
    return f"magnet:?xt=urn:btih:{info_hash}" if info_hash else ""


def kind(state: State) -> str:
    """The state's `type`."""
    return str(state.get("type", ""))


def acquiring(
    *, started_ns: int, queries: Sequence[str], found: int, phase: Mapping[str, object]
) -> State:
    return {
        "type": "acquiring",
        "started_at": zulu_form(started_ns),
        "queries_tried": list(queries),
        "candidates_found": found,
        "phase": dict(phase),
    }


def acquisition_failed(*, queries: Sequence[str], seen: int, reason: str) -> State:
    return {
        "type": "acquisition_failed",
        "queries_tried": list(queries),
        "candidates_seen": seen,
        "reason": reason,
        "failed_at": zulu_now(),
    }


def needs_approval(candidates: Sequence[Candidate]) -> State:
    return {
        "type": "needs_approval",
        "candidates": [candidate.summary() for candidate in candidates[:5]],
        "recommended_idx": 0,
        "confidence": candidates[0].score,
        "waiting_since": zulu_now(),
    }


def auto_approved(candidates: Sequence[Candidate]) -> State:
    return {
        "type": "auto_approved",
        "selected": candidates[0].selected(),
        "candidates": [candidate.selected() for candidate in candidates],
        "confidence": candidates[0].score,
        "approved_at": zulu_now(),
    }


def approved(*, summaries: Sequence[Mapping[str, object]], chosen: int, by: str) -> State:
    shown = [
        {
            "title": each["title"],
            "info_hash": each["info_hash"],
            "magnet_uri": magnet(str(each["info_hash"])),
            "size_bytes": each["size_bytes"],
            "score": each["score"],
        }
        for each in summaries
    ]
    return {
        "type": "approved",
        "selected": shown[chosen],
        "candidates": shown,
        "approved_by": by,
        "approved_at": zulu_now(),
    }


def rejected(*, by: str, reason: str | None) -> State:
    return {"type": "rejected", "rejected_by": by, "reason": reason, "rejected_at": zulu_now()}


def cancelled(*, by: str, reason: str | None) -> State:
    return {"type": "cancelled", "cancelled_by": by, "reason": reason, "cancelled_at": zulu_now()}


def converting(
    *, current_name: str, started_ns: int, current_idx: int = 0, total: int = 1
) -> State:
    return {
        "type": "converting",
        "current_idx": current_idx,
        "total": total,
        "current_name": current_name,
        "started_at": zulu_form(started_ns),
    }


def placing(*, total_files: int) -> State:
    return {
        "type": "placing",
        "files_placed": 0,
        "total_files": total_files,
        "started_at": zulu_now(),
    }


def completed(*, conversion_s: int, size_bytes: int, files_placed: int) -> State:
    return {
        "type": "completed",
        "completed_at": zulu_now(),
        "stats": {
            "total_download_bytes": 0,  # always 0, in the real server too
            "download_duration_secs": 0,  # always 0
            "conversion_duration_secs": conversion_s,
            "final_size_bytes": size_bytes,
            "files_placed": files_placed,
        },
    }


def pending_retry(*, error: str, attempt: int, retry_after_ns: int, phase: str) -> State:
    return {
        "type": "pending_retry",
        "error": error,
        "retry_attempt": attempt,
        "retry_after": zulu_form(retry_after_ns),
        "failed_phase": phase,
        "scheduled_at": zulu_now(),
    }


def failed(error: str, *, retryable: bool) -> State:
    return {
        "type": "failed",
        "error": error,
        "retryable": retryable,
        "retry_count": 0,  # always 0
        "failed_at": zulu_now(),
    }
