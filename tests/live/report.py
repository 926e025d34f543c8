"""The table of all trials."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from tests.live.measure import Outcome

_HEAD = (
    *("trial", "client", "way", "arrived right", "wrong", "searches/album"),
    *("downloads/album", "lost", "waiting", "s", ""),
)


@dataclass
class Report:
    """What is told while the trials run, and their table."""

    path: Path
    console: Console = field(
        default_factory=lambda: Console(highlight=False, soft_wrap=True, markup=False)
    )
    outcomes: list[Outcome] = field(default_factory=list)

    def say(self, what: str) -> None:
        """One line."""
        self.console.print(what)

    def add(self, outcome: Outcome) -> None:
        """One trial, told at once, and kept in the file of results."""
        self.outcomes.append(outcome)
        self.say(f"  {' · '.join(filter(None, _row(outcome)))}")
        for remark in outcome.remarks:
            self.say(f"      {remark}")
        self.path.parent.mkdir(exist_ok=True)
        rows = [outcome.as_json() for outcome in self.outcomes]
        self.path.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")

    def table(self) -> None:
        """All of them, as Markdown."""
        self.say("")
        for row in (_HEAD, ["---"] * len(_HEAD), *(_row(outcome) for outcome in self.outcomes)):
            self.say(f"| {' | '.join(row)} |")

    def held(self) -> bool:
        """Whether all that must hold did."""
        return not any(outcome.missed and outcome.must_hold for outcome in self.outcomes)


def _row(outcome: Outcome) -> Sequence[str]:
    return (
        outcome.trial,
        outcome.client,
        outcome.way,
        f"{outcome.right} of {outcome.wanted}",
        str(outcome.wrong),
        f"{outcome.searches:g}",
        f"{outcome.downloads:g}",
        str(outcome.lost),
        str(outcome.waiting),
        f"{outcome.seconds:.1f}",
        _verdict(outcome),
    )


def _verdict(outcome: Outcome) -> str:
    if not outcome.missed:
        return "held"
    return f"{'MISSED' if outcome.must_hold else 'only told'}: {'; '.join(outcome.missed)}"
