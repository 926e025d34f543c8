"""`make live`: the whole product against a real Torrentino, its clients, and a closed swarm; and
against a real catalog server.

TORRENTINO_BINARY and PEZZOTTIFY_BINARY name programs that somebody built; what needs one that is
not named does not run, and that is said. Everything is on 127.0.0.1 (but for the catalog server,
which binds all interfaces), in a folder of its own, and is ended afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeAlias

from services.local.postgres import Postgres
from shared.db.migrate import migrate
from shared.errors import DownloadsError
from shared.media.tools import find_tools
from tests.live import catalog, libraries, measure
from tests.live.lab import Bench
from tests.live.measure import Outcome
from tests.live.programs import Failed
from tests.live.report import Report
from tests.live.sound import Sounds
from tests.live.trials import CLIENTS, TRIALS, Client, Trial
from tests.support import pezzottify
from tests.support.ffmpegs import prefer_the_wheel

Runs: TypeAlias = Sequence[tuple[Client, Trial]]

_REPOSITORY = Path(__file__).parents[2]
_RESULTS = _REPOSITORY / "bench-results/live.json"
_BINARY = "TORRENTINO_BINARY"
_TEMPLATE = "live_template"


def main() -> int:
    """Run what was asked for; 0 if all that must hold held, or nothing could run."""
    given = _arguments()
    report = Report(_RESULTS)
    # Whoever ends us in order, with whatever signal, leaves nothing behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return max(_catalog_server(given, report), _torrentino(given, report))
    except KeyboardInterrupt:
        report.say("stopped")
    except (DownloadsError, Failed) as error:
        report.say(f"{error}")
    return 1


def _catalog_server(given: argparse.Namespace, report: Report) -> int:
    """The chain at a catalog server; 0 if it held, or could not run."""
    if given.only not in catalog.NAME:
        return 0
    binary = pezzottify.binary()
    if binary is None:
        report.say(f"{pezzottify.BINARY} is not set: skipped the trial {catalog.NAME}")
        return 0
    if not os.access(binary, os.X_OK):
        report.say(f"{pezzottify.BINARY}: {binary} is no program")
        return 1
    made = prefer_the_wheel()
    try:
        with _folder(given.keep) as folder:
            folder.chmod(0o755)
            return 0 if asyncio.run(catalog.run(folder, binary, report)) else 1
    finally:
        if made is not None:
            shutil.rmtree(made)


def _torrentino(given: argparse.Namespace, report: Report) -> int:
    """The trials with a Torrentino; 0 if all that must hold held, or nothing could run."""
    binary = os.environ.get(_BINARY, "")
    if not binary:
        report.say(f"{_BINARY} is not set: skipped {len(TRIALS)} trials with {_and(CLIENTS)}")
        return 0
    if not os.access(binary, os.X_OK):
        report.say(f"{_BINARY}: {binary} is no program")
        return 1
    runs = [
        (client, trial)
        for client in _clients(given.client, report)
        for trial in TRIALS
        if given.only in trial.name and client in trial.clients
    ]
    if not runs and given.only in catalog.NAME:
        return 0
    if not runs:
        names = "\n  ".join(trial.name for trial in TRIALS)
        report.say(f"nothing to run; the trials are:\n  {names}")
        return 1
    with _folder(given.keep) as folder:
        asyncio.run(_each_way(folder, Path(binary), runs, report, given))
    report.table()
    return 0 if report.held() else 1


async def _each_way(
    folder: Path, binary: Path, runs: Runs, report: Report, given: argparse.Namespace
) -> None:
    for way in ("direct", "tickets") if given.way == "both" else (given.way,):
        async with _bench(folder / way, binary, way) as bench:
            await _all(bench, runs, report, given)


async def _all(bench: Bench, runs: Runs, report: Report, given: argparse.Namespace) -> None:
    for number, (client, trial) in enumerate(runs):
        name = f"{client}_{number}"
        report.add(await _one(bench, client, trial, name=name, seed=given.seed))
        if given.keep is None:
            await asyncio.to_thread(shutil.rmtree, bench.folder / name, ignore_errors=True)


async def _one(bench: Bench, client: Client, trial: Trial, *, name: str, seed: int) -> Outcome:
    try:
        return await measure.run(bench, trial, client, name=name, seed=seed)
    except (Failed, DownloadsError) as error:
        broken = Outcome(trial=trial.name, client=client, way=bench.way, wanted=0)
        broken.missed.append(f"not run: {error}")
        return broken


@asynccontextmanager
async def _bench(folder: Path, binary: Path, way: str) -> AsyncIterator[Bench]:
    """What all trials share."""
    libtorrent = await asyncio.to_thread(libraries.libtorrent, _REPOSITORY / ".venv-live")
    postgres = Postgres(folder / "postgres", fsync=False)
    await postgres.start()
    try:
        await postgres.create_database(_TEMPLATE)
        await migrate(postgres.url(_TEMPLATE))
        yield Bench(
            folder=folder,
            sounds=Sounds(folder.parent / "sounds", find_tools()),
            libraries=libtorrent,
            torrentino=binary.resolve(),
            qbittorrent=shutil.which("qbittorrent-nox"),
            postgres=postgres,
            template=_TEMPLATE,
            way=way,
        )
    finally:
        await postgres.stop()


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Where everything is: a folder that is removed at the end, or one that is kept."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield Path(tempfile.mkdtemp(prefix="run-", dir=keep.resolve()))
        return
    with tempfile.TemporaryDirectory(prefix="pezzottify-live-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def _clients(wanted: str, report: Report) -> list[Client]:
    clients: list[Client] = [client for client in CLIENTS if wanted in (client, "all")]
    if "qbittorrent" in clients and shutil.which("qbittorrent-nox") is None:
        report.say("qbittorrent-nox is not installed: skipped all trials with qbittorrent")
        clients.remove("qbittorrent")
    return clients


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make live ARGS=…", description=__doc__)
    parser.add_argument("--client", choices=(*CLIENTS, "all"), default="all")
    parser.add_argument("--only", default="", metavar="NAME", help="trials with this in their name")
    parser.add_argument(
        "--way",
        choices=("direct", "tickets", "both"),
        default="direct",
        help="ACQUISITION; of tickets it is only told what they do",
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep everything below it")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of kills")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
