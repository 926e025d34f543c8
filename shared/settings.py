"""Every setting, read once from the environment.

A missing or unusable value is reported in one line with the variable, the value that it has, and
what it wants. `X_FILE=/path` reads the secret `X` from a file. docs/settings.md is generated from
this module.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from shared.errors import DownloadsError
from shared.media.formats import Accepted, AudioFormat, Playable
from shared.setting_types import (
    AbsolutePath,
    CertificateFile,
    Count,
    DatabaseUrl,
    HttpUrl,
    NatsUrls,
    Seconds,
    Umask,
    Word,
)

Service = Literal["ingest", "ticketer", "poller", "fetcher_writer", "watchdog", "reaper", "bridge"]
# Those that every installation runs.
SERVICES: tuple[Service, ...] = (
    "ingest",
    "ticketer",
    "poller",
    "fetcher_writer",
    "watchdog",
    "reaper",
)
# Those that run where their settings switch something on.
OPTIONAL_SERVICES: tuple[Service, ...] = ("bridge",)
EVERY_SERVICE = SERVICES + OPTIONAL_SERVICES

SECRETS = (
    "database_url",
    "nats_url",
    "torrentino_api_key",
    "catalog_server_password",
    "bootstrap_admin_key",
)

# The settings that a service requires, beside DATABASE_URL and NATS_URL, which all services do.
REQUIRED_BY: dict[str, frozenset[Service]] = {
    "torrentino_url": frozenset({"ticketer", "poller", "fetcher_writer"}),
    "catalog_db": frozenset({"ingest", "watchdog"}),
    "media_path": frozenset({"ingest", "fetcher_writer", "watchdog", "reaper"}),
}


# What pydantic reads as false, and what is not set.
_NO = {"", "0", "false", "f", "no", "n", "off"}


class SettingsError(DownloadsError):
    """One line for each variable that is missing or unusable."""


class Settings(BaseModel):
    """The environment of `contract.md`, validated; immutable after the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_url: DatabaseUrl = Field(
        description="a PostgreSQL 15+ URL, e.g. postgresql://user:password@host/database"
    )
    nats_url: NatsUrls = Field(
        description="one or more NATS URLs separated by commas, e.g. nats://host:4222"
    )
    nats_ca_file: CertificateFile | None = Field(
        None,
        description="a readable PEM file with the CA certificates that the NATS server's"
        " certificate is checked with; default: the system's",
    )
    torrentino_url: HttpUrl | None = Field(
        None, description="the base of Torrentino's API, e.g. http://torrentino:8080/api/v1"
    )
    torrentino_api_key: SecretStr | None = Field(
        None, description="Torrentino's API key, sent as a Bearer token"
    )
    torrentino_delivery: Annotated[Literal["shared", "http"], Word] = Field(
        "shared",
        description="how files are collected: from a folder that both see (`shared`), or from a"
        " file server (`http`)",
    )
    torrentino_dest_root: AbsolutePath = Field(
        "/media/incoming",
        description="the root of every ticket's dest_path, as Torrentino sees it",
    )
    torrentino_dest_mount: AbsolutePath | None = Field(
        None,
        description="the path of TORRENTINO_DEST_ROOT as this service sees it; default: the same"
        " (`shared`)",
    )
    torrentino_files_url: HttpUrl | None = Field(
        None,
        description="the URL of TORRENTINO_DEST_ROOT on a file server, with JSON listings as nginx"
        " gives them (`http`)",
    )
    torrentino_downloads_root: AbsolutePath | None = Field(
        None,
        description="the torrent client's folder of downloads, as Torrentino sees it; if set, files"
        " are collected from there, and Torrentino's pipeline is not needed",
    )
    torrentino_downloads_mount: AbsolutePath | None = Field(
        None,
        description="the path of TORRENTINO_DOWNLOADS_ROOT as this service sees it; default: the"
        " same",
    )
    torrentino_downloads_url: HttpUrl | None = Field(
        None,
        description="the URL of TORRENTINO_DOWNLOADS_ROOT on a file server, with JSON listings as"
        " nginx gives them (`http`)",
    )
    acquisition: Annotated[Literal["auto", "direct", "tickets"], Word] = Field(
        "auto",
        description="the acquisition mode: releases are searched for, chosen and followed here,"
        " with Torrentino's search and torrent client (`direct`), or by Torrentino's tickets"
        " (`tickets`); `auto` is `direct` where Torrentino has both configured and"
        " TORRENTINO_DOWNLOADS_ROOT is set",
    )
    searches_per_hour: Count = Field(
        60, ge=1, description="searches in an hour, over all ticketers (direct)"
    )
    search_gap_s: float = Field(
        10, ge=0, le=3600, description="the least seconds between two searches (direct)"
    )
    releases_ttl_h: float = Field(
        24, gt=0, le=8760, description="hours for which a search result is used again (direct)"
    )
    max_downloads: Count = Field(
        20, ge=1, description="downloads at once, over all ticketers (direct)"
    )
    max_grabs: int = Field(
        3,
        ge=1,
        le=100,
        description="downloads that are tried for one request before the next search (direct)",
    )
    prefer_lossless: bool = Field(
        True, description="whether lossless releases are preferred (direct)"
    )
    min_bitrate_kbps: int = Field(
        192, ge=0, le=10_000, description="kbit/s below which a release is refused (direct)"
    )
    max_grab_gb: float = Field(
        8,
        gt=0,
        le=10_000,
        description="GB above which a release is left to an administrator (direct)",
    )
    download_cleanup: Annotated[Literal["keep", "wrong", "all"], Word] = Field(
        "wrong",
        description="which downloads are removed at Torrentino with their files: none (`keep`) but"
        " such as are in error, which are added again,"
        " those that proved wrong or that no item needs any more (`wrong`), or also those that were"
        " collected (`all`); a torrent that was there before is never removed (direct)",
    )
    ticket_keep_days: int = Field(
        30,
        ge=0,
        le=36_500,
        description="days after which our ended tickets are deleted at Torrentino",
    )
    torrentino_cleanup: Annotated[Literal["keep", "ticket", "torrent"], Word] = Field(
        "keep",
        description="what is removed at Torrentino when all files are collected: nothing (`keep`),"
        " the `ticket`, or the ticket and the `torrent` with its data, which ends its seeding; a"
        " torrent that was there before is never removed, and a damaged one of our own always",
    )
    ticket_grouping: Annotated[Literal["auto", "track", "album"], Word] = Field(
        "auto",
        description="how many items one ticket serves: one (`track`) or all waiting items of an"
        " album (`album`); `auto` is `album` from two tracks on and where a track's own ticket"
        " failed",
    )
    audio_format: Annotated[Literal["original"] | AudioFormat, Word] = Field(
        "original",
        description="the format that verified files are converted to; `original`: none, except by"
        " AUDIO_PLAYABLE",
    )
    audio_playable: Annotated[Playable, Word] = Field(
        "convert",
        description="what becomes of files that browsers do not play and AUDIO_FORMAT does not"
        " convert, such as WavPack or ALAC: lossless ones become FLAC and others Opus (`convert`),"
        " or none is chosen or placed (`refuse`)",
    )
    audio_quality: int | None = Field(
        None,
        ge=0,
        le=512,
        description="kbit/s from 32 on, for `flac` the compression level from 0 to 12; default: the"
        " format's own",
    )
    audio_keep_source: bool = Field(
        False,
        description="whether the original of a converted file is kept, in .incoming/sources/ below"
        " MEDIA_PATH",
    )
    catalog_db: Path | None = Field(
        None,
        description="the path of the catalog server's catalog.db; opened read-only, except by the"
        " bridge with BRIDGE_CATALOG_WRITE",
    )
    media_path: Path | None = Field(
        None, description="the media root; files go to audio/… below it"
    )
    replace_broken: bool = Field(
        False,
        description="whether a file that the catalog names, and that is not the whole audio of its"
        " track, is replaced by a new one under audio/; the old file stays",
    )
    catalog_server_url: HttpUrl | None = Field(
        None, description="the catalog server's address, e.g. http://pezzottify:3001"
    )
    catalog_server_user: str | None = Field(
        None, description="the handle of an account at the catalog server"
    )
    catalog_server_password: SecretStr | None = Field(
        None, description="the password of that account"
    )
    bridge_catalog_write: bool = Field(
        False,
        description="whether the bridge sets tracks.audio_uri of placed files in CATALOG_DB",
    )
    bridge_server_stopped: bool = Field(
        False,
        description="whether the bridge writes to CATALOG_DB while no catalog server has it open",
    )
    bridge_requests: bool = Field(
        True,
        description="whether the bridge takes over the requests that wait at the catalog server"
        " (with CATALOG_SERVER_URL)",
    )
    bridge_availability: bool = Field(
        True,
        description="whether the bridge has the catalog server compute its availability flags after"
        " a change, which needs the permission ServerAdmin (with CATALOG_SERVER_URL)",
    )
    bridge_close: Annotated[Literal["delete", "leave", "receipt"], Word] = Field(
        "delete",
        description="how a request ends at the catalog server once it plays: it is deleted"
        " (`delete`), it stays (`leave`), or it is completed through the server's ingestion"
        " (`receipt`), which has a risk: see docs/bridge.md",
    )
    bridge_poll_s: Seconds = Field(
        5, ge=1, description="seconds within which a request at the catalog server is seen"
    )
    umask: Umask = Field(
        "022",
        description="the rights in octal that new files and folders lack, e.g. `022`, `002` or"
        " `077`: files get the rest of 0666, folders of 0777",
    )
    host: str = Field("127.0.0.1", description="the address on which ingest serves HTTP")
    port: int = Field(3002, ge=0, le=65535, description="the port on which ingest serves HTTP")
    ops_host: str = Field(
        "127.0.0.1",
        description="the address on which OPS_PORT answers, or several separated by commas",
    )
    ops_port: int = Field(
        9091, ge=0, le=65535, description="the port of /healthz, /readyz and /metrics"
    )
    bootstrap_admin_key: SecretStr | None = Field(
        None,
        min_length=1,
        description="an admin API key that always works; make it long and random",
    )
    user_max_requests_per_day: Count = Field(
        100, ge=0, description="requests a user may make per UTC day; an album is one"
    )
    user_max_queue_size: Count = Field(
        200, ge=0, description="active items a user may have at once"
    )
    max_retries: int = Field(8, ge=0, le=100, description="retries after the first attempt")
    retry_initial_s: Seconds = Field(60, description="seconds before the first retry")
    retry_multiplier: float = Field(
        2.5, ge=1, le=1000, description="the factor by which each further wait is longer"
    )
    retry_max_s: Seconds = Field(86400, description="the longest wait before a retry, in seconds")
    lease_s: Seconds = Field(
        60, ge=1, description="seconds that a lease lasts without renewal, at least 1"
    )
    poll_interval_s: Seconds = Field(5, description="seconds between two polls of an open ticket")
    sweep_interval_s: Seconds = Field(5, description="seconds that a lost wake-up can delay work")
    stall_timeout_s: Seconds = Field(
        10800, description="seconds without progress after which an attempt fails"
    )
    duration_tolerance_s: Seconds = Field(
        6,
        description=(
            "seconds that a file's length may differ from the catalog's; of a track under a minute"
            " a tenth of its length, but at least a second"
        ),
    )
    max_tickets_in_flight: Count = Field(
        50, ge=1, description="open tickets at Torrentino, over all ticketers"
    )
    min_free_disk_mb: Count = Field(
        1024, ge=0, description="free MiB on the media disk below which fetching pauses"
    )
    fetch_concurrency: int = Field(
        4, ge=1, le=64, description="files that one fetcher-writer collects and verifies at once"
    )
    refused_keep_days: int = Field(
        14,
        ge=0,
        le=36_500,
        description="days for which a refused download is kept, so that an administrator can"
        " release it; 0 keeps none",
    )
    refused_keep_gb: float = Field(
        5,
        ge=0,
        le=10_000,
        description="GB that all refused downloads may take; the oldest are removed first, and 0"
        " keeps none",
    )
    history_retention_days: int = Field(
        90, ge=1, le=36_500, description="days that finished items and their history are kept"
    )
    shutdown_grace_s: Seconds = Field(
        20, description="seconds that work in hand may take to finish after SIGTERM"
    )
    log_format: Annotated[Literal["json", "console"], Word] = Field(
        "json", description="`console` for reading on a terminal"
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Word] = Field(
        "info", description="the least severe log lines that are written"
    )

    @property
    def dest_mount(self) -> Path:
        """The path of `torrentino_dest_root` here."""
        return Path(self.torrentino_dest_mount or self.torrentino_dest_root)

    @property
    def downloads_mount(self) -> Path | None:
        """The path of `torrentino_downloads_root` here; None if it is not set."""
        path = self.torrentino_downloads_mount or self.torrentino_downloads_root
        return None if path is None else Path(path)

    @property
    def accepted(self) -> Accepted:
        """Which formats may become a placed file."""
        return Accepted(format=self.audio_format, playable=self.audio_playable)

    @property
    def umask_bits(self) -> int:
        """`umask` as `os.umask` takes it."""
        return int(self.umask, 8)

    @property
    def file_mode(self) -> int:
        """The mode of a file under `umask`."""
        return 0o666 & ~self.umask_bits

    @property
    def refused_keep_bytes(self) -> int:
        """`refused_keep_gb` in bytes; 0 if none are kept."""
        return int(self.refused_keep_gb * 1e9) if self.refused_keep_days else 0

    @property
    def media_root(self) -> Path:
        """The media root, for the services that require it."""
        assert self.media_path is not None, "media_path is required by this service"
        return self.media_path


def bridge_wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment switches a duty of the bridge on; its values are not checked."""
    write = environ.get("BRIDGE_CATALOG_WRITE", "").strip().lower()
    return bool(environ.get("CATALOG_SERVER_URL", "").strip()) or write not in _NO


def load(services: Collection[Service], environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings that `services` need.

    Raises:
        SettingsError: with one line per variable at fault.
    """
    # An empty variable counts as not set: compose files write `X=`.
    given = {name: environ.get(name.upper(), "").strip() for name in Settings.model_fields}
    values = {name: text for name, text in given.items() if text}
    at_fault = _add_from_files(values, environ, SECRETS)
    settings = None
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        at_fault |= {str(p["loc"][0]): _line(p) for p in reversed(error.errors())} | at_fault
    missing = {name: _not_set(name) for name in _required(services, values) if name not in values}
    at_fault |= missing | at_fault
    if settings is not None:
        at_fault |= _contradictions(services, settings) | at_fault
    if settings is None or at_fault:
        ordered = [at_fault[name] for name in Settings.model_fields if name in at_fault]
        raise SettingsError("\n".join(ordered))
    return settings


def secret(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """One of `SECRETS`, for a program that needs no other setting; empty if it is not set.

    Raises:
        SettingsError: its file cannot be read.
    """
    given = environ.get(name.upper(), "").strip()
    values = {name: given} if given else {}
    if at_fault := _add_from_files(values, environ, [name]):
        raise SettingsError(at_fault[name])
    return values.get(name, "")


def _add_from_files(
    values: dict[str, str], environ: Mapping[str, str], names: Collection[str]
) -> dict[str, str]:
    """Add the secrets that files have; returns the lines for those that cannot be read."""
    at_fault = {}
    for name in names:
        variable = name.upper()
        path = environ.get(f"{variable}_FILE", "").strip()
        if not path:
            continue
        if name in values:
            at_fault[name] = f"{variable} and {variable}_FILE are both set: keep one"
            continue
        wants = f"{variable}_FILE: got {path!r}, wants a readable file with the secret in it"
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            at_fault[name] = f"{wants} ({error.strerror})"
        except UnicodeDecodeError:
            at_fault[name] = f"{wants} (it is not UTF-8 text)"
        else:
            if text:
                values[name] = text
            elif Settings.model_fields[name].is_required():
                at_fault[name] = f"{wants} (it is empty)"
    return at_fault


def _contradictions(services: Collection[Service], settings: Settings) -> dict[str, str]:
    """The lines for values that are usable alone but not together."""
    at_fault = {}
    if settings.torrentino_downloads_mount and not settings.torrentino_downloads_root:
        at_fault["torrentino_downloads_root"] = (
            f"{_not_set('torrentino_downloads_root')} (TORRENTINO_DOWNLOADS_MOUNT is set)"
        )
    if settings.torrentino_downloads_url and not settings.torrentino_downloads_root:
        at_fault["torrentino_downloads_root"] = (
            f"{_not_set('torrentino_downloads_root')} (TORRENTINO_DOWNLOADS_URL is set)"
        )
    if settings.acquisition == "direct" and not settings.torrentino_downloads_root:
        at_fault["torrentino_downloads_root"] = (
            f"{_not_set('torrentino_downloads_root')} (ACQUISITION is direct)"
        )
    quality, format_ = settings.audio_quality, settings.audio_format
    if quality is not None and (
        format_ == "original" or (quality > 12 if format_ == "flac" else quality < 32)
    ):
        at_fault["audio_quality"] = (
            f"AUDIO_QUALITY: got '{quality}', wants"
            f" {Settings.model_fields['audio_quality'].description} (AUDIO_FORMAT is {format_})"
        )
    server = {
        name: getattr(settings, name)
        for name in ("catalog_server_url", "catalog_server_user", "catalog_server_password")
    }
    # The others may have the address, and never the password.
    if "bridge" in services and any(server.values()):
        at_fault |= {
            name: f"{_not_set(name)} (the other CATALOG_SERVER_* are set)"
            for name, value in server.items()
            if value is None
        }
    return at_fault


def _line(problem: Mapping[str, object]) -> str:
    location = problem["loc"]
    assert isinstance(location, tuple)
    name = str(location[0])
    wants = Settings.model_fields[name].description
    if problem["type"] == "missing":
        return _not_set(name)
    got = "a value that is not shown" if name in SECRETS else repr(problem["input"])
    return f"{name.upper()}: got {got}, wants {wants} ({problem['msg']})"


def _not_set(name: str) -> str:
    return f"{name.upper()}: is not set, wants {Settings.model_fields[name].description}"


def _required(services: Collection[Service], values: Mapping[str, str]) -> list[str]:
    """The settings that these services require, beside the ones that all do."""
    names = [name for name, needed_by in REQUIRED_BY.items() if needed_by & set(services)]
    if "bridge" in services:
        writes = values.get("bridge_catalog_write", "").lower() not in _NO
        if writes:
            names += ["catalog_db", "media_path"]
        elif "catalog_server_url" not in values:
            # Without one of the two it has nothing to do.
            names.append("catalog_server_url")
    over_http = values.get("torrentino_delivery", "").lower() == "http"
    if over_http and "fetcher_writer" in services:
        names.append("torrentino_files_url")
    return names
