"""`make compose-test`: build, install, kill, scale, upgrade, back up, restore; then a table."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import DownloadsError
from tests.compose.lab import REPOSITORY, Failed, Lab
from tests.compose.report import Report
from tests.compose.steps import Steps, previous_commit

RESULTS = REPOSITORY / "bench-results/compose-test.json"


def main() -> int:
    """Run every step, print the table, and leave nothing behind; 0 if all held."""
    wanted = _arguments()
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        sys.exit("no Docker engine answers `docker info`: start one that this user may use")
    report, began = Report(), time.monotonic()
    try:
        with _lab(wanted) as lab:
            lab.fill_in()
            _all(Steps(lab, report), report)
            lab.remove()
            _others(wanted, report)
    except (Failed, AssertionError, DownloadsError):
        traceback.print_exc()
        return 1
    report.add("all of it", time.monotonic() - began)
    report.write(RESULTS)
    return 0


@contextmanager
def _lab(wanted: argparse.Namespace) -> Iterator[Lab]:
    """An installation for the block; its logs are printed if the block fails."""
    lab = Lab()
    try:
        lab.check_out()
        yield lab
    except (Failed, AssertionError, DownloadsError):
        print(lab.logs(), file=sys.stderr)
        raise
    finally:
        if wanted.keep:
            print(f"kept: project {lab.name}, {lab.checkout}")
        else:
            lab.close(keep_images=wanted.keep_images)


def _all(steps: Steps, report: Report) -> None:
    report.timed("build", steps.build)
    report.timed("install", steps.install)
    steps.start()
    report.timed("who may do what", steps.hardened)
    report.timed("who reaches whom", steps.networks)
    report.timed("an album over HTTP", steps.album_over_http)
    report.timed("an album over NATS", steps.album_over_nats)
    report.timed("rights at NATS", steps.rights)
    report.timed("logins at PostgreSQL", steps.database_users)
    report.timed("a folder that is missing", steps.missing_folder)
    report.timed("read a stuck item", steps.read_a_stuck_item)
    # It makes all containers again, and their logs with them.
    report.timed("the bridge names the files in the catalog", steps.bridge)
    steps.kill_each()
    report.timed("scale each service to 3 and back", steps.scale_each)
    report.timed("stop and start", steps.stop_and_start)
    report.timed("down and up", steps.down_and_up)
    report.timed("lose the volume of NATS", steps.lose_nats)
    report.timed("back up, restore into empty volumes", steps.back_up_and_restore)
    report.timed("move the media", steps.move)
    report.timed("rotate secrets", steps.rotate)
    report.timed("collect over HTTP, with nginx", steps.over_http)
    report.timed("NATS with TLS", steps.with_tls)
    report.timed("beside Pezzottify and Torrentino", steps.beside_pezzottify)


def _others(wanted: argparse.Namespace, report: Report) -> None:
    """What begins in another way, and so in an installation of its own."""
    with _lab(wanted) as lab:
        report.timed("try it, as README.md says", Steps(lab, report).try_it)
    commit = previous_commit(wanted.previous)
    if commit is None:
        report.add("upgrade", 0, f"NOT TESTED: this clone has no {wanted.previous}")
        return
    with _lab(wanted) as lab:
        lab.fill_in()
        report.timed("upgrade", lambda: Steps(lab, report).upgrade(commit))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make compose-test ARGS=…", description=__doc__)
    parser.add_argument("--previous", default="HEAD^", help="the commit to upgrade from")
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    parser.add_argument("--keep-images", action="store_true", help="for a quicker next run")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
