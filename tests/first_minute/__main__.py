"""`make first-minute`: the README's two commands as newcomers give them; then a table."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

from tests.compose.report import Report
from tests.first_minute import cases
from tests.first_minute.cases import Rows
from tests.first_minute.copies import REPOSITORY, Failed, NotPossible

RESULTS = REPOSITORY / "bench-results/first-minute.json"
_RELEASES = ("python3.11", "python3.12", "python3.13", "python3.14")


async def _lane(report: Report, *todo: Callable[[], Rows]) -> None:
    """One case after another; each row is told as it comes."""
    for case in todo:
        began = time.monotonic()
        try:
            async for what, seen in case():
                report.add(what, time.monotonic() - began, seen)
                began = time.monotonic()
        except NotPossible as reason:
            report.add(f"NOT TESTED: {case.__name__.replace('_', ' ')}", 0, str(reason))


def _other_pythons() -> list[str]:
    """The releases on this machine beside ours, each of which can make a .venv.

    FIRST_MINUTE_PYTHONS names such as are not on PATH.
    """
    ours = f"python3.{sys.version_info[1]}"
    return os.environ.get("FIRST_MINUTE_PYTHONS", "").split() or [
        name
        for name in _RELEASES
        if name != ours
        and shutil.which(name)
        and subprocess.run(
            [name, "-c", "import venv, ensurepip"], capture_output=True, check=False
        ).returncode
        == 0
    ]


async def _all(report: Report, *, short: bool) -> None:
    # About as long as the other lane.
    first: list[Callable[[], Rows]] = [
        cases.shortly_as_root if short else cases.as_root_in_a_closed_folder
    ]
    second: list[Callable[[], Rows]] = []
    if short:
        report.add("NOT TESTED: small disks, tests in a closed folder, kills", 0, "--short")
        second += [cases.with_no_index]
    else:
        first = [cases.with_no_index, *first, cases.tests_in_a_closed_folder]
    if os.getuid() == 0:
        second += [*([] if short else [cases.on_small_disks]), cases.as_another_user]
    else:
        report.add("NOT TESTED: small disks and another user", 0, "only root can make them")
    pythons = _other_pythons()
    there = {name.rpartition("/")[2] for name in pythons} | {f"python3.{sys.version_info[1]}"}
    for missing in sorted({*_RELEASES} - there):
        report.add(f"NOT TESTED: {missing}", 0, "it is not on PATH")
    second += [cases.with_python(name) for name in pythons]
    async with asyncio.TaskGroup() as lanes:
        lanes.create_task(_lane(report, *first))
        lanes.create_task(_lane(report, *second))


def main() -> int:
    """Run every case, two side by side, print the table, and leave nothing behind.

    `--short` leaves out what takes a minute, and what `make test` does as well.
    """
    report, began = Report(), time.monotonic()
    try:
        asyncio.run(_all(report, short="--short" in sys.argv[1:]))
    except ExceptionGroup as group:
        failed, others = group.split(Failed)
        if failed is None or others is not None:
            raise
        for each in failed.exceptions:
            print(f"FAILED: {each}", file=sys.stderr)
        return 1
    report.add("all of it", time.monotonic() - began)
    report.write(RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
