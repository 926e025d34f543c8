"""The errors, by what the caller does about them.

    DownloadsError           base; its other subclasses keep a program from starting
    ├── Unavailable          retry the same call later; no attempt is used
    │   ├── DependencyDown   PostgreSQL, NATS, Torrentino, the catalog or a disk is away
    │   │   └── StatementAborted  PostgreSQL works, and ended one statement
    │   │   └── Unexplained       too many open files, no memory: no sign of a cause
    │   └── Misconfigured    it answers, but an operator has to change a setting first
    ├── OutcomeUnknown       the call may have had its effect: check before repeating it
    ├── AttemptFailed        this attempt is over and counts against the item's budget
    │   └── CorruptAudio     the delivered file is not the whole, right audio
    ├── Stale                another worker has moved the row: drop the work
    └── Refused              a request that is turned down
        ├── InvalidRequest   malformed; the caller must change it
        ├── Unknown          no such track, album, item or scan
        ├── LimitReached     the user's daily or queue limit
        └── Conflict         what it names is in another state

Adapters translate every foreign exception into one of these, so that no code above an adapter
catches an exception of asyncpg, nats-py, httpx or SQLite.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

# "media" is the media root, "media_write" whether files can be placed in it, "space" the free space
# on its disk: a full disk can still be read.
# The catalog may be read while it cannot be written to ("catalog_write", for the bridge).
# "searcher" and "torrent_client" are behind Torrentino, and may be away while it answers. Nothing
# waits for "look_ups", the optional reads of Torrentino.
Dependency = Literal[
    "postgres",
    "nats",
    "torrentino",
    "searcher",
    "torrent_client",
    "look_ups",
    "catalog",
    "catalog_write",
    "catalog_server",
    "media",
    "media_write",
    "space",
    "incoming",
    "ffmpeg",
]


class ErrorType(StrEnum):
    """The coarse cause of a failed attempt, as `contract.md` lists it for `error_type`."""

    CONNECTION = "connection"
    TIMEOUT = "timeout"
    NOT_FOUND = "not_found"
    REJECTED = "rejected"
    PARSE = "parse"
    STORAGE = "storage"
    CORRUPTION = "corruption"
    STALLED = "stalled"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


class DownloadsError(Exception):
    """Base of all errors that this project raises on purpose."""


class Unavailable(DownloadsError):
    """The same call may succeed later; the cause is not known to be the item.

    `path`: the file or folder of one item with which it was met, if it was one.
    """

    def __init__(self, dependency: Dependency, detail: str, *, path: str | None = None) -> None:
        super().__init__(f"{dependency}: {detail}")
        self.dependency: Dependency = dependency
        self.detail = detail
        self.path = path


class DependencyDown(Unavailable):
    """A dependency does not answer, or reports that it cannot work now."""


class StatementAborted(DependencyDown):
    """PostgreSQL ended one statement, by its timeout or for another one's lock, and works.

    What it was for is left for later; everything else continues. `statement` is its beginning.
    """

    def __init__(self, detail: str, *, statement: str) -> None:
        super().__init__("postgres", f"{detail} ({statement})" if statement else detail)
        self.statement = statement


class Unexplained(DependencyDown):
    """A failure that says nothing of its cause; it is never held against an item at once."""


class Misconfigured(Unavailable):
    """A dependency answers, but refuses us until an operator changes a setting."""


class OutcomeUnknown(DownloadsError):
    """A request was sent and no answer came back that can be relied on.

    `settled`: the server has certainly finished the request (it answered with an error), so that
    a check for the effect is final at once.
    """

    def __init__(self, detail: str, *, settled: bool) -> None:
        super().__init__(detail)
        self.settled = settled


class AttemptFailed(DownloadsError):
    """This attempt at an item is over; `evidence` is shown to an administrator."""

    def __init__(
        self, error_type: ErrorType, message: str, evidence: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.evidence: dict[str, object] = dict(evidence or {})


class CorruptAudio(AttemptFailed):
    """The file is not audio, not whole, damaged, or not as long as the catalog says."""

    def __init__(self, message: str, evidence: Mapping[str, object]) -> None:
        super().__init__(ErrorType.CORRUPTION, message, evidence)


class Stale(DownloadsError):
    """A guarded write changed no row: another worker has moved the item."""


class Refused(DownloadsError):
    """A request that is turned down; the message says what the caller can do about it."""


class InvalidRequest(Refused):
    """The request is malformed."""


class Unknown(Refused):
    """What the request names does not exist."""


class LimitReached(Refused):
    """The user has used up a limit."""


class Conflict(Refused):
    """What the request names is not in a state that allows it."""
