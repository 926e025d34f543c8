"""The back ends of a run: those that the environment names, and embedded servers for the rest.

The sample is for the stand-in only. If the environment names a Torrentino or a catalog, nothing is
requested by itself, and the state is kept apart from the sample's.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import SecretStr

from services.local.postgres import Postgres
from services.local.sample import ALBUM_ID, create_catalog, sample_track_ids, write_sample
from services.local.servers import Nats, free_port, kept_secret, write_secret
from services.local.torrentino import SongList, Standin, StandinConfig
from services.local.torrentino.source import load_songs
from shared.catalog.sqlite import Catalog
from shared.db.media_root import forget_unused_root
from shared.db.pool import Database
from shared.errors import DownloadsError, Unavailable
from shared.media.paths import find_audio
from shared.settings import SERVICES, Settings, load
from shared.web import AddressInUse, listener

_MIB = 1024 * 1024
# Measured: a first run takes 54 MB, 47 of them for PostgreSQL, whose WAL grows in steps of 16 MB.
_FIRST_RUN_MB = 120
_LATER_RUN_MB = 40
_PORT = 3002
_OPS_PORT = 9091
# The catalog server has its metrics on the usual port, and may start later.
_OPS_PORT_BESIDE_A_CATALOG_SERVER = 9092
_PORTS_TRIED = 20
# Slow enough to watch. The sample has its own wrong releases.
_SHOW = StandinConfig(
    acquire_s=0.3, download_s=2.5, convert_s=0.2, place_s=0.2, tick_s=0.1, decoys=False
)
# Placeholders until the servers are started.
_NOT_YET = {"DATABASE_URL": "postgresql://not-started", "NATS_URL": "nats://not-started"}


class CannotStart(DownloadsError):
    """The run lacks something; the text says what to change."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The back ends of a run: from the environment, or to be started."""

    settings: Settings
    # Shared by all runs: the key, the log, the address of the API.
    data: Path
    state: Path
    postgres: Postgres | None
    nats: Nats | None
    standin: StandinConfig | None
    own_catalog: bool
    # Remarks on the choices for the user, one line each.
    remarks: list[str] = field(default_factory=list)
    # The servers that are being started.
    awaited: set[str] = field(default_factory=set)

    @property
    def has_sample(self) -> bool:
        """Whether the sample may be requested: only with the stand-in."""
        return self.standin is not None and not self.own_catalog

    def in_place(self) -> tuple[int, int]:
        """How many of the sample's tracks have a file, and how many there are. Blocks."""
        ids = sample_track_ids(ALBUM_ID)
        return sum(bool(find_audio(self.settings.media_root, id_)) for id_ in ids), len(ids)

    def end_now(self) -> None:
        """Signal the embedded servers to end, without waiting."""
        for server in (self.postgres, self.nats):
            if server is not None:
                server.end_now()

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Settings]:
        """Start the embedded servers, and stop them at the end; yields the settings for all.

        Raises:
            CannotStart, DownloadsError: something is missing, or does not start.
        """
        await self._check()
        async with AsyncExitStack() as stack:
            for server in (self.postgres, self.nats):
                if server is not None:
                    stack.push_async_callback(server.stop)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._start_servers())
                tasks.create_task(self._start_standin(stack))
            yield self._connected()

    def _connected(self) -> Settings:
        update: dict[str, object] = {}
        if self.postgres is not None:
            update["database_url"] = SecretStr(self.postgres.url())
        if self.nats is not None:
            update["nats_url"] = SecretStr(self.nats.url)
            # For clients that are run by hand; only the owner may read it.
            write_secret(self.data / "nats.url", self.nats.url)
        return self.settings.model_copy(update=update)

    async def _check(self) -> None:
        """Raise CannotStart if a port is taken or the catalog cannot be used."""
        for port, variable in ((self.settings.port, "PORT"), (self.settings.ops_port, "OPS_PORT")):
            listener(self.settings.host, port, variable=variable).close()
        if self.own_catalog:
            catalog = Catalog(self.catalog)
            try:
                await catalog.check()
            except Unavailable as held:
                raise CannotStart(f"CATALOG_DB: {held.detail}") from held
            finally:
                await catalog.close()

    async def _start_servers(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for server in (self.nats, self.postgres):
                if server is not None:
                    tasks.create_task(self._start(server))
        url = (
            self.postgres.url() if self.postgres else self.settings.database_url.get_secret_value()
        )
        # The import takes a second, while the servers start.
        from shared.db.migrate import migrate  # noqa: PLC0415

        with self._awaiting("the schema"):
            await migrate(url)
            await self._choose_media_root(url)

    async def _choose_media_root(self, url: str) -> None:
        """Allow another MEDIA_PATH as long as no file was placed below the first one."""
        kept, now = self.state / "media.path", str(self.settings.media_root)
        if kept.exists() and kept.read_text(encoding="utf-8").strip() != now:
            database = Database(url)
            try:
                await forget_unused_root(database)
            finally:
                await database.close()
        kept.write_text(f"{now}\n", encoding="utf-8")

    async def _start(self, server: Postgres | Nats) -> None:
        with self._awaiting(type(server).__name__):
            await server.start()

    @contextmanager
    def _awaiting(self, name: str) -> Iterator[None]:
        self.awaited.add(name)
        try:
            yield
        finally:
            self.awaited.discard(name)

    async def _start_standin(self, stack: AsyncExitStack) -> None:
        stopped = threading.Event()
        try:
            await self._make_catalog(stopped)
            if self.standin is not None:
                await stack.enter_async_context(Standin(self.standin, self._songs()))
        except (OSError, sqlite3.Error) as error:
            raise CannotStart(f"cannot keep the sample in {self.state}: {error}") from error
        finally:
            stopped.set()

    async def _make_catalog(self, stopped: threading.Event) -> None:
        if self.has_sample:
            with self._awaiting("the sample's songs"):
                await asyncio.to_thread(write_sample, self.catalog.parent, stopped=stopped)
        elif not self.own_catalog and not self.catalog.exists():
            await asyncio.to_thread(create_catalog, self.catalog)

    def _songs(self) -> SongList:
        # Without the sample the stand-in has no music.
        if not self.has_sample:
            return SongList([])
        return load_songs(self.catalog.parent / "songs.json")

    @property
    def catalog(self) -> Path:
        """The path of the catalog."""
        assert self.settings.catalog_db is not None, "given, or chosen"
        return self.settings.catalog_db


def surroundings(data: Path, given: Mapping[str, str]) -> Surroundings:
    """Choose the back ends by the environment; make the state folders, start nothing. Blocks.

    Raises:
        SettingsError: a variable is invalid.
        CannotStart: a folder that a variable names is missing, or the disk is too small.
        OSError: a state folder cannot be made.
    """
    # An empty variable counts as not set.
    environ = {name: text for name, text in given.items() if text.strip()}
    own_torrentino, own_catalog = "TORRENTINO_URL" in environ, "CATALOG_DB" in environ
    state = data / "own" if own_torrentino or own_catalog else data
    state.mkdir(exist_ok=True)
    postgres = None if _names(environ, "DATABASE_URL") else Postgres(state / "postgres")
    if postgres is not None:
        # Check before anything is written.
        _check_room(state, _LATER_RUN_MB if postgres.is_made() else _FIRST_RUN_MB)
    nats = None if _names(environ, "NATS_URL") else Nats(state / "nats")
    standin = None if own_torrentino else _standin_config(state)
    remarks: list[str] = []
    defaults = {
        # The next run soon continues the work of a killed one.
        "LEASE_S": "10",
        "POLL_INTERVAL_S": "1",
        "SWEEP_INTERVAL_S": "1",
        "MEDIA_PATH": str(state / "media"),
        **_ports(environ, own_catalog=own_catalog, remarks=remarks),
    }
    if not own_catalog:
        sample = "sample/catalog.db" if standin is not None else "empty.db"
        defaults["CATALOG_DB"] = str(state / sample)
    if standin is not None:
        defaults |= _of_standin(standin, state)
    if not _names(environ, "BOOTSTRAP_ADMIN_KEY"):
        defaults["BOOTSTRAP_ADMIN_KEY"] = kept_secret(data / "admin.key")
    needed = {name: text for name, text in _NOT_YET.items() if not _names(environ, name)}
    settings = load(SERVICES, defaults | environ | needed)
    _check_folders(settings, environ)
    return Surroundings(
        settings=settings,
        data=data,
        state=state,
        postgres=postgres,
        nats=nats,
        standin=standin,
        own_catalog=own_catalog,
        remarks=remarks,
    )


def _check_room(state: Path, wanted_mb: int) -> None:
    free_mb = shutil.disk_usage(state).free // _MIB
    if free_mb < wanted_mb:
        raise CannotStart(
            f"{state} has {free_mb} MiB free, a run takes {wanted_mb}: free some space, or keep the"
            " state elsewhere with --data"
        )


def _names(environ: Mapping[str, str], secret: str) -> bool:
    return secret in environ or f"{secret}_FILE" in environ


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _standin_config(state: Path) -> StandinConfig:
    return replace(
        _SHOW,
        port=free_port(),
        # It writes files to any path, so other users of this machine must not call it.
        api_key=kept_secret(state / "torrentino.key"),
        database=state / "torrentino.db",
        downloads=_made(state / "downloads"),
    )


def _of_standin(standin: StandinConfig, state: Path) -> dict[str, str]:
    return {
        "TORRENTINO_URL": f"http://{standin.host}:{standin.port}/api/v1",
        "TORRENTINO_API_KEY": str(standin.api_key),
        "TORRENTINO_DEST_ROOT": str(_made(state / "incoming")),
        "TORRENTINO_DOWNLOADS_ROOT": str(standin.downloads),
        # A restarted stand-in loses its conversions, like the real one, but nothing takes long.
        "STALL_TIMEOUT_S": "10",
        "RETRY_INITIAL_S": "2",
        # It has no real indexer to protect.
        "SEARCH_GAP_S": "0",
    }


def _ports(environ: Mapping[str, str], *, own_catalog: bool, remarks: list[str]) -> dict[str, str]:
    """The usual ports, or the next free ones with a remark."""
    host = environ.get("HOST", "127.0.0.1")
    ops_port = _OPS_PORT_BESIDE_A_CATALOG_SERVER if own_catalog else _OPS_PORT
    chosen: dict[str, str] = {}
    for variable, wanted in (("PORT", _PORT), ("OPS_PORT", ops_port)):
        if variable in environ:
            continue
        port = _free_from(host, wanted, variable)
        if port != wanted:
            what = "the API" if variable == "PORT" else "the health of the services"
            remarks.append(f"port {wanted} is taken: {what} is on {port}; {variable} sets another")
        chosen[variable] = str(port)
    return chosen


def _free_from(host: str, wanted: int, variable: str) -> int:
    for port in range(wanted, wanted + _PORTS_TRIED):
        try:
            listener(host, port, variable=variable).close()
        except AddressInUse:
            continue
        return port
    return wanted


def _check_folders(settings: Settings, environ: Mapping[str, str]) -> None:
    """Raise CannotStart for a folder of the environment that is missing.

    It is not made: with a mistyped path, or a disk that is not mounted, files would go to a wrong
    folder.
    """
    named: dict[str, Path | None] = {}
    if "MEDIA_PATH" in environ:
        named["MEDIA_PATH"] = settings.media_root
    if settings.torrentino_delivery == "shared":
        named["TORRENTINO_DEST_ROOT"] = settings.dest_mount
        named["TORRENTINO_DOWNLOADS_ROOT"] = settings.downloads_mount
    for variable, folder in named.items():
        if folder is not None and not folder.is_dir():
            name = variable.replace("_ROOT", "_MOUNT")
            asked = name if name in environ else variable
            raise CannotStart(
                f"{asked}: there is no folder {folder} here: mount it, or correct the path"
            )
