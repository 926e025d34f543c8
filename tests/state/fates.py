"""What Torrentino makes of a ticket, by the name of the fate.

A fate that ends the attempt spoils its ticket: only for such a ticket may an attempt be burnt,
and only once.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.state.setting import Setting

Ticket = dict[str, Any]

_HASH = "0123456789abcdef0123456789abcdef01234567"
_CANDIDATE = {"title": "A torrent", "info_hash": _HASH, "size_bytes": 5, "score": 0.5}

# Torrentino continues with the ticket, or waits.
GOING_ON: dict[str, Ticket] = {
    "pending": {"type": "pending"},
    "acquiring": {"type": "acquiring", "phase": {"phase": "searching"}},
    "auto_approved": {"type": "auto_approved", "selected": _CANDIDATE},
    "approved": {"type": "approved", "selected": _CANDIDATE},
    "pending_retry": {"type": "pending_retry", "error": "503"},
    "downloading 5": {"type": "downloading", "info_hash": _HASH, "progress_pct": 5.0},
    "downloading 80": {"type": "downloading", "info_hash": _HASH, "progress_pct": 80.0},
    "converting": {"type": "converting"},
    "placing": {"type": "placing"},
    "needs_approval": {"type": "needs_approval", "candidates": [_CANDIDATE]},
    "from the future": {"type": "from_the_future", "detail": 7},
}

# The ticket is over or of no use, not caused by the item: another is asked for, no attempt is used.
HARMLESS: dict[str, Ticket] = {
    "cannot search": {"type": "acquisition_failed", "reason": "Search failed: away"},
}

# The attempt is over.
SPOILT: dict[str, Ticket] = {
    "not found": {"type": "acquisition_failed", "reason": "No suitable candidates found"},
    "no queries": {"type": "acquisition_failed", "reason": "No queries generated"},
    "strange end": {"type": "acquisition_failed", "reason": "who knows"},
    "placement failed": {"type": "failed", "error": "Placement failed: x"},
    "conversion failed": {"type": "failed", "error": "Conversion failed: x"},
    "candidates failed": {"type": "failed", "error": "All 2 candidates failed"},
    "stalled": {"type": "failed", "error": "Download stalled: x"},
    "rejected": {"type": "rejected", "reason": None},
    "cancelled": {"type": "cancelled", "reason": "by hand"},
}

# What completed tickets deliver; all but the first two spoil the ticket.
FILES = ("right", "right among others", "wrong length", "cut", "none", "empty")
GONE = "gone"
COMPLETED = tuple(f"completed: {what}" for what in FILES)
GOOD = COMPLETED[0]

FATES = (*GOING_ON, *HARMLESS, *SPOILT, *COMPLETED, GONE)


def spoils(fate: str) -> bool:
    """Whether an attempt may be burnt for it."""
    return fate in SPOILT or fate in COMPLETED[2:]


def apply(setting: Setting, ticket: Ticket, track: str, fate: str) -> None:
    """Let this ticket of the stand-in meet its fate."""
    standin = setting.world.standin
    if fate == GONE:
        found = standin.core.tickets.get(ticket["id"])
        assert found is not None
        standin.core.tickets.delete(found, by="a test")
    elif fate in COMPLETED:
        files, size_bytes = _deliver(setting, Path(ticket["dest_path"]), track, fate)
        stats = {"files_placed": files, "final_size_bytes": size_bytes}
        standin.set_state(ticket["id"], {"type": "completed", "stats": stats})
    else:
        standin.set_state(ticket["id"], (GOING_ON | HARMLESS | SPOILT)[fate])


def _deliver(setting: Setting, folder: Path, track: str, fate: str) -> tuple[int, int]:
    """Put files into the ticket's folder; how many it says there are, and of what size."""
    what = fate.removeprefix("completed: ")
    source = setting.bad.get(what, setting.songs[track])
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"A torrent of {track}.flac.converted"
    match what:
        case "none":
            return 1, source.stat().st_size
        case "empty":
            target.touch()
            return 1, 0
        case "right among others":
            shutil.copyfile(source, target)
            (folder / "cover.jpg").write_bytes(b"\xff\xd8" + bytes(500))
            return 2, source.stat().st_size + 502
        case _:
            shutil.copyfile(source, target)
            return 1, source.stat().st_size
