"""What the poller asks of a mode of acquisition: downloads to follow, and what becomes of one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, TypeVar

from shared.acquisition.protocol import ModeName
from shared.bus.subjects import Wake
from shared.errors import Dependency, Unavailable


class Row(Protocol):
    """A download that is due, as it is recorded."""

    @property
    def id(self) -> str:
        """Of our row."""
        ...

    @property
    def failures(self) -> int:
        """How often in a row it alone could not be read or acted on."""
        ...


RowT = TypeVar("RowT", bound=Row)
SeenT = TypeVar("SeenT")


class Follower(Protocol[RowT, SeenT]):
    """A mode's part in the poller. Its calls may raise `Unavailable`."""

    @property
    def name(self) -> str:
        """Of the loop, for logs and metrics."""
        ...

    @property
    def mode(self) -> ModeName:
        """As `tickets.way` has it."""
        ...

    @property
    def needs(self) -> Collection[Dependency]:
        """What has to answer before anything is claimed."""
        ...

    async def prepare(self) -> None:
        """Return when the remote can be read; called before each claim."""
        ...

    async def claim(self, limit: int) -> Sequence[RowT]:
        """The downloads that are due, kept from other pollers for a while."""
        ...

    async def read(self, rows: Sequence[RowT]) -> Mapping[str, SeenT]:
        """What the remote shows of each, by its id."""
        ...

    async def act(self, row: RowT, seen: SeenT) -> Collection[Wake]:
        """Decide about one, and do it; returns the kinds of work that follow from it."""
        ...

    async def put_off(self, rows: Collection[RowT], *, delay_s: float) -> None:
        """Make these due later; nothing is known of them."""
        ...

    async def is_at_fault(self, away: Unavailable) -> bool:
        """Whether the remote works: then what failed is the one download's alone.

        A second look decides, right after the failure. What is away but stops only some downloads
        is noted, and counts as theirs.
        """
        ...

    async def failed(self, row: RowT, seen: SeenT, away: Unavailable) -> Collection[Wake]:
        """Put off the one download that is at fault, each time for longer; or give it up."""
        ...
