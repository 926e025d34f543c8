"""The life of one item, written once.

`status` is what the original plan names and other programs read; `stage` says where within it the
item is. Every write that moves an item takes its guard (`sources`) from the table below, and the
diagram in docs/architecture.md is made from it by `diagram()`.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """The four values of `queue_items.status`."""

    PENDING = "PENDING"
    DOWNLOADING = "DOWNLOADING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class Stage(StrEnum):
    """Where an item is within its status."""

    QUEUED = "queued"  # waits for a ticketer
    RETRY_WAIT = "retry_wait"  # waits for `due_at` after a failed attempt
    TICKETING = "ticketing"  # a ticketer holds it; the intent to create a ticket is recorded
    SEARCHING = "searching"  # Torrentino has the ticket and looks for a torrent
    NEEDS_APPROVAL = "needs_approval"  # a person has to choose at Torrentino
    DOWNLOADING = "downloading"  # the torrent is being downloaded
    PROCESSING = "processing"  # Torrentino converts or places the file
    READY = "ready"  # the torrent is there; the file waits to be collected
    FETCHING = "fetching"  # a fetcher-writer holds it, looks for its file and collects it
    HELD = "held"  # a person has to say which of the torrent's files it is
    VERIFYING = "verifying"  # the file is here and is being decoded
    CONVERTING = "converting"  # the file is whole, and becomes what AUDIO_FORMAT asks for
    COMPLETED = "completed"  # the file is in place
    FAILED = "failed"  # given up, with the reason


STATUS_OF: dict[Stage, Status] = {
    Stage.QUEUED: Status.PENDING,
    Stage.RETRY_WAIT: Status.PENDING,
    Stage.TICKETING: Status.DOWNLOADING,
    Stage.SEARCHING: Status.DOWNLOADING,
    Stage.NEEDS_APPROVAL: Status.DOWNLOADING,
    Stage.DOWNLOADING: Status.DOWNLOADING,
    Stage.PROCESSING: Status.DOWNLOADING,
    Stage.READY: Status.DOWNLOADING,
    Stage.FETCHING: Status.DOWNLOADING,
    Stage.HELD: Status.DOWNLOADING,
    Stage.VERIFYING: Status.DOWNLOADING,
    Stage.CONVERTING: Status.DOWNLOADING,
    Stage.COMPLETED: Status.COMPLETED,
    Stage.FAILED: Status.FAILED,
}

# The stages in which Torrentino works on a ticket. It may go from any of them to any other
# (failover starts the search again, a restart loses a conversion), so we follow it.
REMOTE = frozenset({Stage.SEARCHING, Stage.NEEDS_APPROVAL, Stage.DOWNLOADING, Stage.PROCESSING})
# The stages in which one of our workers holds a lease on the item.
LEASED = frozenset({Stage.TICKETING, Stage.FETCHING, Stage.VERIFYING, Stage.CONVERTING})
TERMINAL = frozenset({Stage.COMPLETED, Stage.FAILED})
ACTIVE_STATUSES = (Status.PENDING, Status.DOWNLOADING)

_GIVE_UP = {Stage.RETRY_WAIT, Stage.FAILED}

# Why each edge exists is in docs/architecture.md, "The life of one request".
TRANSITIONS: dict[Stage, frozenset[Stage]] = {
    Stage.QUEUED: frozenset({Stage.TICKETING, Stage.SEARCHING, Stage.COMPLETED, Stage.FAILED}),
    Stage.RETRY_WAIT: frozenset({Stage.TICKETING, Stage.SEARCHING, Stage.COMPLETED, Stage.FAILED}),
    Stage.TICKETING: frozenset({Stage.SEARCHING, Stage.QUEUED, *_GIVE_UP}),
    **{
        stage: frozenset({*(REMOTE - {stage}), Stage.READY, Stage.QUEUED, *_GIVE_UP})
        for stage in sorted(REMOTE)
    },
    Stage.READY: frozenset({Stage.FETCHING, Stage.FAILED}),
    Stage.FETCHING: frozenset(
        {Stage.VERIFYING, Stage.READY, Stage.HELD, Stage.QUEUED, Stage.COMPLETED, *_GIVE_UP}
    ),
    Stage.HELD: frozenset({Stage.READY, *_GIVE_UP}),
    Stage.VERIFYING: frozenset(
        {Stage.CONVERTING, Stage.COMPLETED, Stage.READY, Stage.QUEUED, *_GIVE_UP}
    ),
    Stage.CONVERTING: frozenset({Stage.COMPLETED, Stage.READY, Stage.QUEUED, *_GIVE_UP}),
    Stage.COMPLETED: frozenset(),
    Stage.FAILED: frozenset({Stage.QUEUED}),
}


def allowed_from(target: Stage) -> list[str]:
    """The stages from which an item may come to `target`, as the guard of a write."""
    return sorted(stage.value for stage, targets in TRANSITIONS.items() if target in targets)


def diagram() -> str:
    """The lifecycle as a Mermaid state diagram, for docs/architecture.md; colours are statuses."""
    lines = ["stateDiagram-v2", "    [*] --> queued"]
    lines += [
        f"    {stage} --> {target}"
        for stage, targets in TRANSITIONS.items()
        for target in Stage
        if target in targets
    ]
    lines += ["    completed --> [*]", "    failed --> [*]"]
    for status, colour in _COLOURS.items():
        stages = ",".join(stage for stage, of in STATUS_OF.items() if of is status)
        lines += [f"    classDef {status} fill:{colour},color:#000", f"    class {stages} {status}"]
    return "\n".join(lines) + "\n"


_COLOURS = {
    Status.PENDING: "#e3e8ef",
    Status.DOWNLOADING: "#cfe3ff",
    Status.COMPLETED: "#c9f0d1",
    Status.FAILED: "#ffd6d6",
}
