"""`python -m tests.crash`: the crash search; `make crash SEEDS=500` calls it.

Without further arguments: every point alone, all pairs on the way of a file, and random schedules.
Any of --points, --pairs and --seed confines it to these.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import shutil
import sys
import tempfile
import traceback
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.local.postgres import Postgres
from tests.crash.run import Result, run
from tests.crash.schedule import SEARCHED, Schedule, at_points, by_seed, pairs
from tests.crash.zygote import Zygote
from tests.support.databases import new_database, start


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    add = parser.add_argument
    add("--seeds", type=int, default=500, metavar="N", help="so many random schedules")
    add("--seed", type=int, nargs="+", metavar="K", help="these random schedules")
    add("--of", type=int, default=0, help="share all points among so many seeds")
    add(
        "--points",
        nargs="*",
        metavar="NAME",
        help="kill there: a, a@2 (second time), a+b (in turn)",
    )
    add("--pairs", action="store_true", help="all pairs of points on the way of a file")
    add("--plain", action="store_true", help="with --points: only two good tracks")
    add("--times", type=int, default=1, metavar="N", help="everything N times")
    add("--at-once", type=int, default=2, metavar="N", help="schedules at the same time")
    return parser.parse_args()


def schedules(wanted: argparse.Namespace) -> Iterator[Schedule]:
    """What the arguments ask for."""
    all_of_it = wanted.points is None and not wanted.pairs and wanted.seed is None
    if all_of_it or wanted.points is not None:
        yield from (at_points(point, plain=wanted.plain) for point in wanted.points or SEARCHED)
    if all_of_it or wanted.pairs:
        yield from pairs()
    if all_of_it or wanted.seed is not None:
        seeds: Iterable[int] = range(wanted.seeds) if wanted.seed is None else wanted.seed
        yield from (by_seed(seed, of=wanted.of) for seed in seeds)


class Search:
    """Runs schedules, some at once, each in a folder of its own below `logs`."""

    def __init__(self, postgres: Postgres, zygote: Zygote, logs: Path) -> None:
        self._postgres = postgres
        self._zygote = zygote
        self._logs = logs
        self._numbers = itertools.count()
        self.results: list[Result] = []

    async def all(self, todo: Iterator[Schedule]) -> None:
        """Run until nothing is left to do; several of these share `todo`."""
        for schedule in todo:
            number = next(self._numbers)
            database, folder = f"crash_{number}", self._logs / str(number)
            url = await new_database(self._postgres, database)
            result = await run(schedule, self._zygote, folder, url)
            self.results.append(result)
            self._tell(result, folder)

    def _tell(self, result: Result, folder: Path) -> None:
        missed = f", not reached: {' '.join(result.missed)}" if result.missed else ""
        print(
            f"{'FAILED' if result.error else 'ok    '} {result.schedule.replay}:"
            f" {result.took_s:.1f} s, recovery {result.recovery_s:.1f} s{missed}",
            flush=True,
        )
        if result.error is None:
            shutil.rmtree(folder, ignore_errors=True)
            return
        (folder / "error.txt").write_text("".join(traceback.format_exception(result.error)))
        print(
            f"    {_cause(result.error)}\n    logs: {folder}\n"
            f"    replay: python -m tests.crash {result.schedule.replay}",
            flush=True,
        )


def _cause(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:2000]


def _summary(results: list[Result]) -> str:
    failed = [result for result in results if result.error]
    slowest = max((r for r in results if not r.error), key=lambda r: r.recovery_s, default=None)
    points = {point for result in results for point in result.deaths}
    return (
        f"{len(results)} schedules, {len(failed)} failures, {len(points)} of {len(SEARCHED)} points"
        + (f", slowest recovery {slowest.recovery_s:.1f} s" if slowest else "")
        + (f" ({slowest.schedule.replay})" if slowest else "")
    )


@asynccontextmanager
async def _servers(folder: Path) -> AsyncIterator[tuple[Postgres, Zygote]]:
    postgres, zygote = Postgres(folder / "postgres", fsync=False), Zygote()
    await zygote.start()
    try:
        await start(postgres)
        yield postgres, zygote
    finally:
        await zygote.stop()
        await postgres.stop(at_once=True)


async def _main(wanted: argparse.Namespace) -> int:
    # Not below our own folder: run by root, PostgreSQL is another user, who may not enter there.
    folder = Path(tempfile.mkdtemp(prefix="pezzottify-crash-"))
    folder.chmod(0o755)
    async with _servers(folder) as (postgres, zygote):
        search = Search(postgres, zygote, folder / "runs")
        todo = (schedule for _ in range(wanted.times) for schedule in schedules(wanted))
        # When one fails, the others have to end before what they need does.
        async with asyncio.TaskGroup() as group:
            for _ in range(wanted.at_once):
                group.create_task(search.all(todo))
    shutil.rmtree(folder / "postgres", ignore_errors=True)
    print(_summary(search.results))
    failed = any(result.error for result in search.results)
    if not failed:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    # It tells of every connection that a killed NATS ends.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    # The stand-in, of a caller that was killed in the middle of a request.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    sys.exit(asyncio.run(_main(_arguments())))
