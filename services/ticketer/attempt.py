"""What the ticketer asks of a mode of acquisition: attempts to start, each for some items."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

from services.ticketer.intents import ACTOR
from shared.acquisition.protocol import ModeName
from shared.db import moves
from shared.db.claims import Claim
from shared.db.pool import Connection
from shared.errors import AttemptFailed, Dependency, ErrorType, Unavailable
from shared.states import Stage


class NoTurn(Exception):
    """It may be started later, and no attempt is used."""

    def __init__(self, wait_s: float, reason: str) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Attempt(Protocol):
    """The items to start one download for, with the intent under which it is started."""

    @property
    def id(self) -> str:
        """Of the intent."""
        ...

    @property
    def claims(self) -> Sequence[Claim]:
        """The proof that the items are ours."""
        ...

    @property
    def unsettled_s(self) -> float:
        """For how long a request of it may be at work at the remote if it is cut short now."""
        ...

    @property
    def failures(self) -> int:
        """How often in a row it alone failed, while the remote worked."""
        ...

    @property
    def alone(self) -> bool:
        """Whether what is asked now concerns it alone, and not other attempts as well."""
        ...


AttemptT = TypeVar("AttemptT", bound=Attempt)


class Starter(Protocol[AttemptT]):
    """A mode's part in the ticketer. Its calls may raise `Unavailable`."""

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

    @property
    def unsettled_s(self) -> float:
        """For how long a request that got no answer may be at work at the remote."""
        ...

    async def join(self) -> int:
        """Move items to downloads that are under way and serve them too; returns how many."""
        ...

    async def claim(self, limit: int) -> Sequence[AttemptT]:
        """Take items for at most `limit` downloads, and commit the intent of each."""
        ...

    async def start(self, attempt: AttemptT) -> None:
        """Find what an earlier try has started of it, or start it; record it.

        Raises:
            NoTurn: it is to be started later.
            OutcomeUnknown: it may have been started.
            AttemptFailed: there is nothing to start, or the remote refuses it.
        """
        ...

    async def fail(self, attempt: AttemptT, failure: AttemptFailed) -> None:
        """End the attempt of each item, and close the intent."""
        ...

    async def hand_back(
        self, attempt: AttemptT, *, delay_s: float, reason: str, own_fault: bool = False
    ) -> None:
        """Queue the items again; no attempt is used. `own_fault`: it counts as a failure."""
        ...

    async def works(self, dependency: Dependency) -> bool:
        """Whether the remote works, by a second look right after a failure."""
        ...

    def delay_of(self, away: Unavailable) -> float | None:
        """For how long this attempt alone waits for what is away; None: all wait for it."""
        ...


# Of one attempt in a row, while the remote works for others.
_MOST_FAILURES = 8


def give_up_if_hopeless(failures: int) -> None:
    """Call it where the attempt is known to have started nothing.

    Raises:
        AttemptFailed: it has failed alone too often.
    """
    if failures >= _MOST_FAILURES:
        message = f"Torrentino works, but {failures} times in a row not for this request"
        raise AttemptFailed(ErrorType.CONNECTION, message)


_FAILED = "UPDATE tickets SET failures = failures + 1 WHERE id = $1"


async def hand_back_all(
    connection: Connection, attempt: Attempt, *, delay_s: float, reason: str, own_fault: bool
) -> None:
    """Queue the items again that are still held by the attempt."""
    await moves.hand_back(
        connection, attempt.claims, Stage.QUEUED, delay_s=delay_s, reason=reason, actor=ACTOR
    )
    if own_fault:
        await connection.execute(_FAILED, attempt.id)
