"""What each injected fault cost, as one table: `make faults` runs the fault tests and prints it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.world import World

# The file that rows are appended to; not set, nothing is written.
VARIABLE = "FAULT_TABLE"

_BURNED = "SELECT coalesce(sum(retry_count), 0) AS n FROM queue_items"
_LOST = "SELECT count(*) AS n FROM queue_items WHERE status <> 'COMPLETED'"


@dataclass
class Outcome:
    """One fault: call `removed()` when the cause is gone, from then on recovery is timed."""

    fault: str
    _since_s: float = field(default_factory=time.monotonic)

    def removed(self) -> None:
        """The cause of the fault is gone."""
        self._since_s = time.monotonic()

    def elapsed_s(self) -> float:
        """Seconds since the cause was gone, or since the beginning."""
        return time.monotonic() - self._since_s


@asynccontextmanager
async def outcome(world: World, fault: str, *, burned: int = 0) -> AsyncIterator[Outcome]:
    """A fault under which everything arrives: the block ends when all work is over.

    Fails if an item is not COMPLETED then, or if more than `burned` attempts were used up.
    """
    timed = Outcome(fault)
    yield timed
    recovery_s = timed.elapsed_s()
    cost = {
        "fault": fault,
        "recovery_s": round(recovery_s, 2),
        "attempts_burned": (await world.rows(_BURNED))[0]["n"],
        "items_lost": (await world.rows(_LOST))[0]["n"],
    }
    if path := os.environ.get(VARIABLE):
        with Path(path).open("a") as table:
            table.write(json.dumps(cost) + "\n")
    assert cost["items_lost"] == 0, cost
    assert cost["attempts_burned"] <= burned, cost


def main() -> None:
    """Print the table that the tests have written."""
    rows = [json.loads(line) for line in Path(os.environ[VARIABLE]).read_text().splitlines()]
    print("| fault | recovery | attempts burned | items lost |\n|---|---|---|---|")
    for row in sorted(rows, key=lambda row: -row["recovery_s"]):
        print(
            f"| {row['fault']} | {row['recovery_s']:.1f} s | {row['attempts_burned']}"
            f" | {row['items_lost']} |"
        )


if __name__ == "__main__":
    main()
