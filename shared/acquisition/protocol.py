"""What a mode of acquisition can do: find, start, follow, locate the files, give up.

A mode talks to one remote and knows nothing of the queue. What is recorded, and when, is for the
services: an intent is committed before `start`, and `find` looks for what an earlier intent has
started. tests/contract/test_acquisition.py holds for every mode.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

from shared.errors import Dependency, Unavailable

# The values of `tickets.way`, and of ACQUISITION beside `auto`.
ModeName: TypeAlias = Literal["direct", "tickets"]

RemoteT = TypeVar("RemoteT")
OrderT_contra = TypeVar("OrderT_contra", contravariant=True)


class Phase(StrEnum):
    """How far the remote is with a download."""

    WORKING = "working"  # it searches, downloads, or waits for its turn or for a decision
    WHOLE = "whole"  # all of it is there, as far as one answer can tell
    FAILED = "failed"  # the remote has ended it without its files
    GONE = "gone"  # the remote does not have it
    UNREADABLE = "unreadable"  # the remote works, and what it answers about this one is of no use


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A download as it is recorded: enough to find it, to follow it and to give it up."""

    id: str
    # The remote's id of it; None: it may have been started, and is not known by an id yet.
    remote_id: str | None
    # The folder that was ordered for it, as the remote sees it.
    folder: str
    # Of its torrent, where that is known.
    info_hash: str | None = None
    # Of the release that was ordered, where that is known.
    size_bytes: int | None = None
    # The remote ids that were there before it was started; None: not recorded.
    before: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Started:
    """What the remote has started. `was_there`: it had it before, so it is not ours."""

    remote_id: str
    was_there: bool = False


@dataclass(frozen=True, kw_only=True)
class Found:
    """What an earlier try has started; `extra`: the remote ids of repetitions of the same order."""

    remote_id: str
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Seen(Generic[RemoteT]):
    """What the remote shows of a download; `remote` is its own answer, None without a usable one.

    `fault`: of one that is unreadable, why.
    """

    phase: Phase
    remote: RemoteT | None
    fault: Unavailable | None = None


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where the files of a download lie, as the remote sees it.

    `in_torrent`: in the torrent's own folder, and not in the folder that was ordered. Where the
    torrent's name is not that of its files, they are the entry beside `path` whose sizes sum up to
    `size_bytes`.
    """

    path: str
    in_torrent: bool
    size_bytes: int | None = None


class Mode(Protocol[OrderT_contra, RemoteT]):
    """A mode of acquisition. Each call may raise `Unavailable`, and has changed nothing then."""

    @property
    def name(self) -> ModeName:
        """As `tickets.way` has it."""
        ...

    @property
    def needs(self) -> Collection[Dependency]:
        """What has to answer before anything can be started."""
        ...

    async def ready(self) -> None:
        """Return when all that the mode needs answers."""
        ...

    async def find(self, begun: Collection[Begun]) -> Mapping[str, Found]:
        """What earlier tries have started of these, by `Begun.id`; what is not seen is left out."""
        ...

    async def start(self, order: OrderT_contra) -> Started:
        """Have the remote download it. Not to be repeated before `find` has seen nothing.

        Raises:
            AttemptFailed: the remote does not take the order.
            OutcomeUnknown: it may have been started.
        """
        ...

    async def follow(self, begun: Collection[Begun]) -> Mapping[str, Seen[RemoteT]]:
        """How far each of these is, by `Begun.id`; each is in the answer."""
        ...

    async def locate(self, begun: Begun, seen: Seen[RemoteT], /) -> Location | None:
        """Where its files lie; None where they are not whole, or not known."""
        ...

    async def give_up(
        self, begun: Collection[Begun], *, reason: str, with_data: bool
    ) -> frozenset[str]:
        """End these at the remote, and with `with_data` remove what was downloaded.

        May be repeated. What others use at the remote is left there. Returns the ids of those that
        have ended; the others may be there still: repeat the call.
        """
        ...
