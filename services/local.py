"""`make run`: the whole system on this machine, with something to look at.

Embedded PostgreSQL and NATS, a stand-in for Torrentino and a sample catalog take the place of
whatever the environment does not name: with TORRENTINO_URL and CATALOG_DB set, the same command
works for a real installation. All state is in one folder and is kept across restarts.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from services.every import every_service
from services.show import Show
from shared import logs
from shared.app import make_app
from shared.db.migrate import migrate
from shared.local.sample import Sample, write_sample
from shared.local.servers import Nats, Postgres, ServerFailed
from shared.local.torrentino import SongList, Standin, StandinConfig
from shared.local.torrentino.source import load_songs
from shared.ops import OpsServer
from shared.runtime import build_all, on_signals, serve
from shared.settings import SERVICES, Settings, load
from shared.web import WebServer

_PORT = 3002
_OPS_PORT = 9091
# Slow enough to be seen, quick enough not to bore.
_SHOW = StandinConfig(acquire_s=0.3, download_s=2.5, convert_s=0.2, place_s=0.2, tick_s=0.1)


@dataclass(frozen=True, kw_only=True)
class Local:
    """What was started, and the settings that point at it."""

    settings: Settings
    sample: Sample | None
    admin_key: str


async def run(data: Path, *, once: bool) -> int:
    """Start everything, show the sample album arriving, serve until a signal; the exit code.

    `once`: end when the sample album is on disk and decodes, with 0, or with 1 and the reason.

    Raises:
        SettingsError, ServerFailed, DownloadsError: it cannot start, and nothing is left running.
    """
    console = Console(highlight=False, soft_wrap=True)
    stop = asyncio.Event()
    servers: list[Postgres | Nats] = []

    def at_once() -> None:
        for server in servers:
            server.end_now()

    on_signals(stop, at_once=at_once)
    with _only_run(data), (data / "service.log").open("a", encoding="utf-8", buffering=1) as log:
        async with _started(data.resolve(), console, servers) as local:
            logs.configure(local.settings, log)
            return await _serve_and_show(local, stop, console, once=once, log=Path(log.name))


@contextmanager
def _only_run(data: Path) -> Iterator[None]:
    """Hold the folder for this run; the system lets go of it however the run ends."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "lock").open("w", encoding="ascii")
    except OSError as error:
        raise ServerFailed(f"cannot keep state in {data}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerFailed(
                f"another run uses {data}: stop it first, or name another folder with --data"
            ) from None
        yield


async def _serve_and_show(
    local: Local, stop: asyncio.Event, console: Console, *, once: bool, log: Path
) -> int:
    app = make_app(local.settings, name="all")
    duties = [*build_all(app, every_service()), OpsServer(app)]
    [server] = [duty for duty in duties if isinstance(duty, WebServer)]
    serving = asyncio.create_task(serve(app, duties, stop))
    show = Show(
        console=console,
        media_path=local.settings.media_root,
        server=server,
        admin_key=local.admin_key,
        tolerance_s=local.settings.duration_tolerance_s,
    )
    showing = asyncio.create_task(show.run(local.sample, once=once, log=log))
    try:
        await asyncio.wait([serving, showing], return_when=asyncio.FIRST_COMPLETED)
        # A stop ends the services first; what the show then misses is no error.
        shown = showing.done() and not stop.is_set()
        if not once:
            await asyncio.wait([serving])
    finally:
        stop.set()
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        await serving
    if not once:
        return 0
    if not shown:
        console.print("stopped before the album was in place")
        return 1
    return showing.result()


@asynccontextmanager
async def _started(
    data: Path, console: Console, servers: list[Postgres | Nats]
) -> AsyncIterator[Local]:
    """Start what the environment does not name, and stop it at the end."""
    environ = dict(os.environ)
    console.print("starting …")
    async with AsyncExitStack() as stack:
        if "DATABASE_URL" not in environ and "DATABASE_URL_FILE" not in environ:
            postgres = Postgres(data / "postgres")
            servers.append(postgres)
            stack.push_async_callback(postgres.stop)
            await postgres.start()
            environ["DATABASE_URL"] = postgres.url()
        if "NATS_URL" not in environ and "NATS_URL_FILE" not in environ:
            nats = Nats(data / "nats")
            servers.append(nats)
            stack.push_async_callback(nats.stop)
            await nats.start()
            environ["NATS_URL"] = nats.url
        sample = await _sample(data, environ)
        await _torrentino(data, environ, sample, stack)
        admin_key = _admin_key(data, environ)
        defaults = {
            "MEDIA_PATH": str(data / "media"),
            "PORT": str(_PORT),
            "OPS_PORT": str(_OPS_PORT),
            "POLL_INTERVAL_S": "1",
            "SWEEP_INTERVAL_S": "1",
            # What a killed run held is taken up soon by the next.
            "LEASE_S": "10",
        }
        environ = defaults | environ
        settings = load(SERVICES, environ)
        # Only now: the state, the logs and the servers' files are nobody else's business.
        os.umask(settings.umask_bits)
        settings.media_root.mkdir(parents=True, exist_ok=True)
        await migrate(settings.database_url.get_secret_value())
        console.print(f"state: {data}")
        yield Local(settings=settings, sample=sample, admin_key=admin_key)


async def _sample(data: Path, environ: dict[str, str]) -> Sample | None:
    if "CATALOG_DB" in environ:
        return None
    sample = await asyncio.to_thread(write_sample, data / "sample")
    environ["CATALOG_DB"] = str(sample.catalog)
    return sample


async def _torrentino(
    data: Path, environ: dict[str, str], sample: Sample | None, stack: AsyncExitStack
) -> None:
    if "TORRENTINO_URL" in environ:
        return
    # Without a catalog of ours there is nothing that it could be asked for.
    offered = load_songs(data / "sample" / "songs.json") if sample else SongList([])
    downloads = data / "downloads"
    downloads.mkdir(exist_ok=True)
    config = replace(_SHOW, database=data / "torrentino.db", downloads=downloads)
    standin = await stack.enter_async_context(Standin(config, offered))
    incoming = data / "incoming"
    incoming.mkdir(exist_ok=True)
    environ["TORRENTINO_URL"] = standin.url
    environ.setdefault("TORRENTINO_DEST_ROOT", str(incoming))
    environ.setdefault("TORRENTINO_DOWNLOADS_ROOT", str(downloads))
    # Like the real one, the stand-in forgets conversions when it is restarted; with it, unlike
    # with the real one, nothing takes long.
    environ.setdefault("STALL_TIMEOUT_S", "10")
    environ.setdefault("RETRY_INITIAL_S", "2")


def _admin_key(data: Path, environ: dict[str, str]) -> str:
    """The key of the environment, or one that is made once and kept beside the data."""
    path = Path(environ.get("BOOTSTRAP_ADMIN_KEY_FILE") or data / "admin.key")
    if "BOOTSTRAP_ADMIN_KEY" in environ:
        return environ["BOOTSTRAP_ADMIN_KEY"]
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24), encoding="ascii")
    environ["BOOTSTRAP_ADMIN_KEY"] = path.read_text(encoding="ascii").strip()
    environ.pop("BOOTSTRAP_ADMIN_KEY_FILE", None)
    return environ["BOOTSTRAP_ADMIN_KEY"]
