"""The table of what took how long."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Report:
    """The table: what was done, how long it took, and what there is to say of it."""

    rows: list[tuple[str, float, str]] = field(default_factory=list)

    def add(self, what: str, seconds: float, remark: str = "") -> None:
        """One row, told at once."""
        self.rows.append((what, seconds, remark))
        print(f"  {seconds:7.1f} s  {what}  {remark}", flush=True)

    def timed(self, what: str, step: Callable[[], str | None]) -> None:
        """A row for what `step` does; it returns the remark."""
        began = time.monotonic()
        remark = step()
        self.add(what, time.monotonic() - began, remark or "")

    def write(self, path: Path) -> None:
        """Print it as Markdown, and write it as JSON."""
        print("\n| what | s | |\n|---|---|---|")
        for what, seconds, remark in self.rows:
            print(f"| {what} | {seconds:.1f} | {remark} |")
        path.parent.mkdir(exist_ok=True)
        rows = [{"what": w, "seconds": round(s, 2), "remark": r} for w, s, r in self.rows]
        path.write_text(json.dumps(rows, indent=2) + "\n")
