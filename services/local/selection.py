"""The selection of the back ends of a run, by its environment."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from services.local.backends import Backends, CannotStart
from services.local.postgres import Postgres
from services.local.servers import Nats, free_port, kept_secret
from services.local.torrentino import StandinConfig
from shared.settings import (
    OPTIONAL_SERVICES,
    SERVICES,
    Service,
    Settings,
    bridge_wanted,
    load,
)
from shared.web import AddressInUse, listeners

_MIB = 1024 * 1024
# Measured: a first run takes 54 MB, 47 of them for PostgreSQL, whose WAL grows in steps of 16 MB.
_FIRST_RUN_MB = 120
_LATER_RUN_MB = 40
# The defaults of PORT and OPS_PORT.
_PORT = 3002
_OPS_PORT = 9091
# The catalog server has its metrics on 9091, and may start later.
_OPS_PORT_BESIDE_A_CATALOG_SERVER = 9092
_PORTS_TRIED = 20
# Slow enough to watch. The sample has its own wrong releases.
_STANDIN = StandinConfig(
    acquire_s=0.3, download_s=2.5, convert_s=0.2, place_s=0.2, tick_s=0.1, decoys=False
)
# Placeholders until the servers are started.
_PLACEHOLDERS = {"DATABASE_URL": "postgresql://not-started", "NATS_URL": "nats://not-started"}


def select_backends(data: Path, given: Mapping[str, str]) -> Backends:
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
        _check_disk(state, _LATER_RUN_MB if postgres.is_made() else _FIRST_RUN_MB)
    nats = None if _names(environ, "NATS_URL") else Nats(state / "nats")
    standin = None if own_torrentino else _standin_config(state)
    remarks: list[str] = []
    defaults = _defaults(environ, data, state, standin) | _ports(
        environ, own_catalog=own_catalog, remarks=remarks
    )
    needed = {name: text for name, text in _PLACEHOLDERS.items() if not _names(environ, name)}
    chosen = defaults | environ
    services: tuple[Service, ...] = (
        *SERVICES,
        *(OPTIONAL_SERVICES if bridge_wanted(chosen) else ()),
    )
    settings = load(services, chosen | needed)
    _check_folders(settings, environ)
    return Backends(
        settings=settings,
        services=services,
        data=data,
        state=state,
        postgres=postgres,
        nats=nats,
        standin=standin,
        own_catalog=own_catalog,
        remarks=remarks,
    )


def _defaults(
    environ: Mapping[str, str], data: Path, state: Path, standin: StandinConfig | None
) -> dict[str, str]:
    """The settings of a run that the environment may replace."""
    defaults = {
        # The next run soon continues the work of a killed one.
        "LEASE_S": "10",
        "POLL_INTERVAL_S": "1",
        "SWEEP_INTERVAL_S": "1",
        "MEDIA_PATH": str(state / "media"),
    }
    if "CATALOG_DB" not in environ:
        sample = "sample/catalog.db" if standin is not None else "empty.db"
        defaults["CATALOG_DB"] = str(state / sample)
        if standin is not None:
            # The sample's catalog is of this run alone: no server has it open.
            defaults |= {"BRIDGE_CATALOG_WRITE": "true", "BRIDGE_SERVER_STOPPED": "true"}
    if standin is not None:
        defaults |= _of_standin(standin, state)
    if not _names(environ, "BOOTSTRAP_ADMIN_KEY"):
        defaults["BOOTSTRAP_ADMIN_KEY"] = kept_secret(data / "admin.key")
    return defaults


def _check_disk(state: Path, wanted_mb: int) -> None:
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
        _STANDIN,
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
    hosts = {name: environ.get(name, "127.0.0.1") for name in ("HOST", "OPS_HOST")}
    ops_port = _OPS_PORT_BESIDE_A_CATALOG_SERVER if own_catalog else _OPS_PORT
    chosen: dict[str, str] = {}
    for variable, wanted in (("PORT", _PORT), ("OPS_PORT", ops_port)):
        if variable in environ:
            continue
        port = _free_from(hosts[variable.replace("PORT", "HOST")], wanted, variable)
        if port != wanted:
            what = "the API" if variable == "PORT" else "the health of the services"
            remarks.append(f"port {wanted} is taken: {what} is on {port}; {variable} sets another")
        chosen[variable] = str(port)
    return chosen


def _free_from(hosts: str, wanted: int, variable: str) -> int:
    for port in range(wanted, wanted + _PORTS_TRIED):
        try:
            for sock in listeners(hosts, port, variable=variable):
                sock.close()
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
