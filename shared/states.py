"""The lives of an item, of a download, of a scan and of a server's request, each written once.

An enum names the states, a transition table says which may follow which, and named sets say what
the states have in common. Every write that moves a row takes its guard from the table
(`allowed_from`), the database refuses what is not in it (table `transitions`), and the diagrams in
docs/architecture.md are made from it. Whatever decides by a state uses a named set: a new state
has to be put into the sets once, here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, TypeVar


class Status(StrEnum):
    """The four values of `queue_items.status`, which the database derives from the stage."""

    PENDING = "PENDING"
    DOWNLOADING = "DOWNLOADING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


ACTIVE_STATUSES = (Status.PENDING, Status.DOWNLOADING)


class Stage(StrEnum):
    """Where an item is within its status."""

    QUEUED = "queued"  # waits for a ticketer
    RETRY_WAIT = "retry_wait"  # waits for `due_at` after a failed attempt
    TICKETING = "ticketing"  # a ticketer holds it; the intent to start a download is recorded
    SEARCHING = "searching"  # the download has been started; no torrent is known yet
    NEEDS_APPROVAL = "needs_approval"  # an administrator has to choose at Torrentino
    DOWNLOADING = "downloading"  # the torrent is being downloaded
    PROCESSING = "processing"  # Torrentino converts or places the file
    READY = "ready"  # the torrent is there; the file waits to be collected
    FETCHING = "fetching"  # a fetcher-writer holds it, finds its file and collects it
    NEEDS_CHOICE = "needs_choice"  # an administrator has to choose one of the torrent's files
    VERIFYING = "verifying"  # the file is here and is being decoded
    CONVERTING = "converting"  # the file is whole, and becomes what AUDIO_FORMAT asks for
    COMPLETED = "completed"  # the file is in place
    FAILED = "failed"  # given up, with the reason


STATUS_OF: Mapping[Stage, Status] = {
    Stage.QUEUED: Status.PENDING,
    Stage.RETRY_WAIT: Status.PENDING,
    Stage.TICKETING: Status.DOWNLOADING,
    Stage.SEARCHING: Status.DOWNLOADING,
    Stage.NEEDS_APPROVAL: Status.DOWNLOADING,
    Stage.DOWNLOADING: Status.DOWNLOADING,
    Stage.PROCESSING: Status.DOWNLOADING,
    Stage.READY: Status.DOWNLOADING,
    Stage.FETCHING: Status.DOWNLOADING,
    Stage.NEEDS_CHOICE: Status.DOWNLOADING,
    Stage.VERIFYING: Status.DOWNLOADING,
    Stage.CONVERTING: Status.DOWNLOADING,
    Stage.COMPLETED: Status.COMPLETED,
    Stage.FAILED: Status.FAILED,
}

# An item waits for a ticketer, now or from `due_at` on.
WAITING = frozenset({Stage.QUEUED, Stage.RETRY_WAIT})
# The download is followed. It may go from any of these stages to any other (failover starts the
# search again, a restart of Torrentino loses a conversion), and the item follows it.
REMOTE = frozenset({Stage.SEARCHING, Stage.NEEDS_APPROVAL, Stage.DOWNLOADING, Stage.PROCESSING})
# A fetcher-writer holds the item and works on its file.
WRITING = frozenset({Stage.FETCHING, Stage.VERIFYING, Stage.CONVERTING})
# The files of the download are still needed: its folder and its torrent stay.
COLLECTING = WRITING | {Stage.READY, Stage.NEEDS_CHOICE}
# A worker holds a lease on the item.
LEASED = WRITING | {Stage.TICKETING}
# The item does not continue before an administrator has decided.
NEEDS_ADMINISTRATOR = frozenset({Stage.NEEDS_APPROVAL, Stage.NEEDS_CHOICE})
TERMINAL = frozenset({Stage.COMPLETED, Stage.FAILED})
# A refused file may be released for the item: no worker has it, and no other file of it is ready.
RELEASABLE = WAITING | REMOTE | {Stage.NEEDS_CHOICE, Stage.FAILED}

_GIVE_UP = {Stage.RETRY_WAIT, Stage.FAILED}

# Why each edge exists is in docs/architecture.md, "The lifecycle".
TRANSITIONS: Mapping[Stage, frozenset[Stage]] = {
    **{
        stage: frozenset(
            {Stage.TICKETING, Stage.SEARCHING, Stage.READY, Stage.COMPLETED, Stage.FAILED}
        )
        for stage in sorted(WAITING)
    },
    Stage.TICKETING: frozenset({Stage.SEARCHING, Stage.QUEUED, *_GIVE_UP}),
    **{
        stage: frozenset({*(REMOTE - {stage}), Stage.READY, Stage.QUEUED, *_GIVE_UP})
        for stage in sorted(REMOTE)
    },
    Stage.READY: frozenset({Stage.FETCHING, Stage.FAILED}),
    Stage.FETCHING: frozenset(
        {
            Stage.VERIFYING,
            Stage.READY,
            Stage.NEEDS_CHOICE,
            Stage.QUEUED,
            Stage.COMPLETED,
            *_GIVE_UP,
        }
    ),
    Stage.NEEDS_CHOICE: frozenset({Stage.READY, *_GIVE_UP}),
    Stage.VERIFYING: frozenset(
        {Stage.CONVERTING, Stage.COMPLETED, Stage.READY, Stage.QUEUED, *_GIVE_UP}
    ),
    Stage.CONVERTING: frozenset({Stage.COMPLETED, Stage.READY, Stage.QUEUED, *_GIVE_UP}),
    Stage.COMPLETED: frozenset(),
    Stage.FAILED: frozenset({Stage.QUEUED, Stage.READY}),
}

# Where an item goes that its worker does not finish: back to where it was claimed from.
CLAIMED_FROM: Mapping[Stage, Stage] = {
    Stage.TICKETING: Stage.QUEUED,
    **dict.fromkeys(sorted(WRITING), Stage.READY),
}


class DownloadState(StrEnum):
    """Where a download is (`tickets.state`), whichever mode of acquisition it is of."""

    INTENT = "intent"  # about to be started; may have been started, if the answer was lost
    OPEN = "open"  # started, and followed
    WITHDRAWING = "withdrawing"  # no item waits for it: it is ended until it stays ended
    CLOSED = "closed"  # ended; its files may still be collected


DOWNLOAD_TRANSITIONS: Mapping[DownloadState, frozenset[DownloadState]] = {
    DownloadState.INTENT: frozenset(
        {DownloadState.OPEN, DownloadState.WITHDRAWING, DownloadState.CLOSED}
    ),
    DownloadState.OPEN: frozenset({DownloadState.WITHDRAWING, DownloadState.CLOSED}),
    DownloadState.WITHDRAWING: frozenset({DownloadState.CLOSED}),
    # It came back to life at Torrentino after its row was closed.
    DownloadState.CLOSED: frozenset({DownloadState.WITHDRAWING}),
}

# Something of it may be at work at Torrentino.
LIVE_DOWNLOADS = frozenset(DownloadState) - {DownloadState.CLOSED}
# An item can still be served by it.
SERVING_DOWNLOADS = frozenset({DownloadState.INTENT, DownloadState.OPEN})
# The poller reads its remote state.
POLLED_DOWNLOADS = frozenset({DownloadState.OPEN, DownloadState.WITHDRAWING})


class ScanState(StrEnum):
    """Where a scan for missing files is."""

    WAITING = "waiting"  # ordered; no watchdog has begun
    RUNNING = "running"  # a watchdog holds a lease on it
    DONE = "done"
    REFUSED = "refused"  # what it asks for is not in the catalog
    CANCELLED = "cancelled"  # ended by an administrator


SCAN_TRANSITIONS: Mapping[ScanState, frozenset[ScanState]] = {
    ScanState.WAITING: frozenset({ScanState.RUNNING, ScanState.CANCELLED}),
    ScanState.RUNNING: frozenset({ScanState.DONE, ScanState.REFUSED, ScanState.CANCELLED}),
    ScanState.DONE: frozenset(),
    ScanState.REFUSED: frozenset(),
    ScanState.CANCELLED: frozenset(),
}

OPEN_SCANS = frozenset({ScanState.WAITING, ScanState.RUNNING})


class ServerRequestState(StrEnum):
    """Where a request of the catalog server is (`bridge_requests.state`)."""

    FOUND = "found"  # it waits there; announced until ingest has decided about it
    REJECTED = "rejected"  # ingest refused it, with the reason; announced again later
    FOLLOWED = "followed"  # ingest accepted it; it ends there when it plays
    RECEIPT = "receipt"  # it plays, and is being completed through the server's ingestion
    ENDING = "ending"  # it plays, and is being deleted there
    ENDED = "ended"  # it plays, and has been ended there
    WITHDRAWN = "withdrawn"  # it is gone there, and is withdrawn here


SERVER_REQUEST_TRANSITIONS: Mapping[ServerRequestState, frozenset[ServerRequestState]] = {
    ServerRequestState.FOUND: frozenset(
        {
            ServerRequestState.REJECTED,
            ServerRequestState.FOLLOWED,
            ServerRequestState.WITHDRAWN,
        }
    ),
    ServerRequestState.REJECTED: frozenset(
        {ServerRequestState.FOUND, ServerRequestState.WITHDRAWN}
    ),
    ServerRequestState.FOLLOWED: frozenset(
        {
            ServerRequestState.RECEIPT,
            ServerRequestState.ENDING,
            ServerRequestState.ENDED,
            ServerRequestState.WITHDRAWN,
        }
    ),
    # A receipt that does not work: it is deleted instead.
    ServerRequestState.RECEIPT: frozenset({ServerRequestState.ENDING, ServerRequestState.ENDED}),
    ServerRequestState.ENDING: frozenset({ServerRequestState.ENDED}),
    # It is there again: the server's database was restored.
    ServerRequestState.ENDED: frozenset({ServerRequestState.FOLLOWED}),
    ServerRequestState.WITHDRAWN: frozenset({ServerRequestState.FOUND}),
}

# The server lists them until they are ended or withdrawn there.
LISTED_SERVER_REQUESTS = frozenset(
    {ServerRequestState.FOUND, ServerRequestState.REJECTED, ServerRequestState.FOLLOWED}
)

_State = TypeVar("_State", bound=StrEnum)

_TABLES: Mapping[type[StrEnum], Mapping[Any, frozenset[Any]]] = {
    Stage: TRANSITIONS,
    DownloadState: DOWNLOAD_TRANSITIONS,
    ScanState: SCAN_TRANSITIONS,
    ServerRequestState: SERVER_REQUEST_TRANSITIONS,
}


def allowed_from(target: Stage | DownloadState | ScanState | ServerRequestState) -> list[str]:
    """The states from which a row may come to `target`, as the guard of a write."""
    table = _TABLES[type(target)]
    return sorted(state.value for state, targets in table.items() if target in targets)


def values(states: Iterable[StrEnum]) -> list[str]:
    """The states as a parameter of a query."""
    return sorted(state.value for state in states)


def in_sql(states: Iterable[StrEnum]) -> str:
    """The states as a list for `IN (…)` in the text of a query.

    Only for what a partial index needs: PostgreSQL uses one for a query whose text, not whose
    parameter, says the same as the index.
    """
    return ", ".join(f"'{state}'" for state in values(states))


def edges() -> list[tuple[str, str, str]]:
    """Every row of the table `transitions`: life, from, to."""
    lives: Mapping[type[StrEnum], str] = {
        Stage: "item",
        DownloadState: "download",
        ScanState: "scan",
        ServerRequestState: "server_request",
    }
    return sorted(
        (lives[kind], str(state), str(target))
        for kind, table in _TABLES.items()
        for state, targets in table.items()
        for target in targets
    )


def item_diagram() -> str:
    """The life of an item as a Mermaid state diagram; colours are statuses."""
    lines = _diagram(TRANSITIONS, ends=sorted(TERMINAL))
    for status, colour in _COLOURS.items():
        stages = ",".join(stage for stage, of in STATUS_OF.items() if of is status)
        lines += [f"    classDef {status} fill:{colour},color:#000", f"    class {stages} {status}"]
    return "\n".join(lines) + "\n"


def download_diagram() -> str:
    """The life of a download as a Mermaid state diagram."""
    return "\n".join(_diagram(DOWNLOAD_TRANSITIONS, ends=[DownloadState.CLOSED])) + "\n"


def scan_diagram() -> str:
    """The life of a scan as a Mermaid state diagram."""
    ends = [state for state in ScanState if state not in OPEN_SCANS]
    return "\n".join(_diagram(SCAN_TRANSITIONS, ends=ends)) + "\n"


def server_request_diagram() -> str:
    """The life of a catalog server's request as a Mermaid state diagram."""
    ends = [ServerRequestState.ENDED, ServerRequestState.WITHDRAWN]
    return "\n".join(_diagram(SERVER_REQUEST_TRANSITIONS, ends=ends)) + "\n"


def _diagram(table: Mapping[_State, frozenset[_State]], *, ends: Iterable[_State]) -> list[str]:
    first, *_ = table
    order = list(table)
    return [
        "stateDiagram-v2",
        f"    [*] --> {first}",
        *(
            f"    {state} --> {target}"
            for state, targets in table.items()
            for target in sorted(targets, key=order.index)
        ),
        *(f"    {end} --> [*]" for end in ends),
    ]


_COLOURS = {
    Status.PENDING: "#e3e8ef",
    Status.DOWNLOADING: "#cfe3ff",
    Status.COMPLETED: "#c9f0d1",
    Status.FAILED: "#ffd6d6",
}
