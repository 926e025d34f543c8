"""The back ends of a run: those that the environment names, and embedded servers for the rest.

The sample is for the stand-in only. If the environment names a Torrentino or a catalog, nothing is
requested by itself, and the state is kept apart from the sample's.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from services.local.postgres import Postgres
from services.local.sample import (
    ALBUM_ID,
    audio_uris,
    create_catalog,
    sample_track_ids,
    write_sample,
)
from services.local.servers import Nats, write_secret
from services.local.torrentino import SongList, Standin, StandinConfig
from services.local.torrentino.source import load_songs
from shared.catalog.sqlite import Catalog
from shared.db.media_root import MediaRoot, forget_unused_root
from shared.db.pool import Database
from shared.errors import DownloadsError, Unavailable
from shared.media.paths import find_audio
from shared.settings import Service, Settings
from shared.web import listeners


class CannotStart(DownloadsError):
    """The run lacks something; the text says what to change."""


@dataclass(frozen=True, kw_only=True)
class Backends:
    """The back ends of a run: from the environment, or to be started."""

    settings: Settings
    services: tuple[Service, ...]
    # Shared by all runs: the key, the log, the address of the API.
    data: Path
    state: Path
    postgres: Postgres | None
    nats: Nats | None
    standin: StandinConfig | None
    own_catalog: bool
    # A media root of another database, also where it is not below `data`.
    takes_over_media: bool = False
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

    def playable(self) -> tuple[int, int]:
        """How many of the sample's tracks the catalog server would play, and how many there are.

        By its own rule: the value of audio_uri is not empty, and exists below the media root.
        Blocks.
        """
        ids = sample_track_ids(ALBUM_ID)
        named = audio_uris(self.catalog)
        uris = [named.get(id_) for id_ in ids]
        return sum(bool(uri and (self.settings.media_root / uri).exists()) for uri in uris), len(
            ids
        )

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
        settings = self.settings
        for host, port, variable in (
            (settings.host, settings.port, "PORT"),
            (settings.ops_host, settings.ops_port, "OPS_PORT"),
        ):
            for sock in listeners(host, port, variable=variable):
                sock.close()
        if self.own_catalog:
            catalog = Catalog(self.catalog)
            try:
                await catalog.check()
            except Unavailable as down:
                raise CannotStart(f"CATALOG_DB: {down.detail}") from down
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
        root = self.settings.media_root
        kept, now = self.state / "media.path", str(root)
        if kept.exists() and kept.read_text(encoding="utf-8").strip() != now:
            database = Database(url)
            try:
                await forget_unused_root(database)
            finally:
                await database.close()
        kept.write_text(f"{now}\n", encoding="utf-8")
        await self._own_media_root(url)

    async def _own_media_root(self, url: str) -> None:
        """Take over a media root of an earlier database: below our own folder, or if told to.

        Raises:
            CannotStart: it is elsewhere, and may be another installation's.
        """
        path = self.settings.media_root
        database = Database(url)
        try:
            root = MediaRoot(database, path)
            if not await root.is_anothers():
                return
            if not (path.resolve().is_relative_to(self.data) or self.takes_over_media):
                raise CannotStart(
                    f"MEDIA_PATH={path} belongs to another database: choose another folder; or, if"
                    " that one is not used any more, start once with --take-over-media"
                )
            await root.take_over()
        finally:
            await database.close()

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
