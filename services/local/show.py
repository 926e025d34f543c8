"""The screen of `make run`: the sample album's progress, then its files."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from services.client import ApiClient, ApiError, Json
from services.local.backends import Backends
from services.local.sample import ALBUM_ID
from services.local.servers import write_secret
from services.tables import Column, fitting
from services.words import album_counts, situation
from shared.catalog.models import Album, Scope
from shared.catalog.sqlite import Catalog
from shared.errors import CorruptAudio, Unavailable
from shared.media.placed_file import find_placed
from shared.media.tools import find_tools
from shared.settings import Settings
from shared.states import Stage, Status
from shared.untrusted import printable
from shared.web import WebServer

_POLL_S = 0.25
# Far longer than the sample needs; `--once` must end.
_ONCE_TIMEOUT_S = 180.0
# After so long without a change the items are stuck, and `--once` ends.
_STANDSTILL_S = 15.0
# Publishing takes a moment after the last file; what cannot be published never is.
_PUBLISHED_S = 10.0
_ENDED = (Status.COMPLETED, Status.FAILED)
_DOWNLOADED = (Stage.PROCESSING, Stage.READY, Stage.FETCHING, Stage.VERIFYING, Stage.COMPLETED)
_COLUMNS = (
    Column(name="track", rank=0, least=12),
    Column(name="stage", rank=1, least=11),
    Column(name="waits for", rank=2, least=20),
    Column(name="progress", rank=3, least=20),
)
_CLI = ".venv/bin/pezzottify-downloads"


class _NotFinished(Exception):
    """`--once` gives up; the text has the reason."""


@dataclass(frozen=True, kw_only=True)
class Show:
    """Requests the sample album over HTTP, as a user would, and follows it."""

    console: Console
    backends: Backends
    settings: Settings
    server: WebServer

    async def run(self, *, once: bool) -> int:
        """Show the album's progress; 0 if every file of it is in place and decodes."""
        await self.server.started.wait()
        host = f"[{self.server.host}]" if ":" in self.server.host else self.server.host
        url = f"http://{host}:{self.server.port}"
        # The command line reads both files.
        write_secret(self.backends.data / "api.url", url)
        key = self.settings.bootstrap_admin_key
        assert key is not None, "given, or made by us"
        api = ApiClient(url, key.get_secret_value())
        log = self.backends.data / "service.log"
        self.console.print(f"API: {url}   log: {_relative(log)}")
        self.console.print(f"admin key: {key.get_secret_value()}\n")
        try:
            if not self.backends.has_sample:
                return await self._no_sample(api, once=once)
            failed = await self._album(api, once=once)
        except (ApiError, _NotFinished) as error:
            self.console.print(f"{error}; see {log}", markup=False)
            return 1
        finally:
            await api.close()
        if not once:
            self.console.print("\nCtrl-C ends; the state is kept.")
        return 1 if failed else 0

    async def _no_sample(self, api: ApiClient, *, once: bool) -> int:
        """Show the configuration, and how to request a first album; request nothing."""
        for line in [*await self._used_backends(api), "", *await self._first_album()]:
            self.console.print(line, markup=False)
        if once:
            self.console.print(
                "\n--once ends with the sample album, which is for the stand-in alone:"
                " unset TORRENTINO_URL and CATALOG_DB to see it."
            )
            return 1
        self.console.print("\nCtrl-C ends; the state is kept.")
        return 0

    async def _used_backends(self, api: ApiClient) -> list[str]:
        health = (await api.get("admin/stats"))["health"]
        if self.backends.standin is not None:
            torrentino = "TORRENTINO_URL is not set: a stand-in without any music takes its place"
        elif health["torrentino"]["ok"] is False:
            torrentino = f"Torrentino: {health['torrentino']['detail']}; requests wait for it"
        else:
            torrentino = f"Torrentino: {self.settings.torrentino_url}"
        return [torrentino, f"Files go to {self.settings.media_root}/audio"]

    async def _first_album(self) -> list[str]:
        if not self.backends.own_catalog:
            return [
                "CATALOG_DB is not set: the catalog is empty, and nothing can be requested.",
                "Set it to the catalog server's catalog.db, and start again.",
            ]
        catalog = Catalog(self.backends.catalog)
        try:
            example = await _some_album(catalog)
        except Unavailable as down:
            return [f"Catalog: {down.detail}"]
        finally:
            await catalog.close()
        if example is None:
            return [f"Catalog: {self.backends.catalog} has no tracks yet."]
        name = printable(f"{example.artist} - {example.name}")
        return [
            f"Catalog: {self.backends.catalog}",
            "",
            f"Nothing has been requested. To request {name} ({len(example.tracks)} tracks):",
            f"    {_CLI} album {example.id}",
            "To see what is missing, without a request:",
            f"    {_CLI} scan",
        ]

    async def _album(self, api: ApiClient, *, once: bool) -> int:
        catalog = Catalog(self.backends.catalog)
        try:
            album = await catalog.album(ALBUM_ID)
        finally:
            await catalog.close()
        assert album is not None, "the sample has its album"
        answer = await api.post("album", album.id)
        self.console.print(f"{album.artist} - {album.name}: {album_counts(answer)}\n")
        await self._follow(api, [item["id"] for item in answer["items"]], once=once)
        return await self._check(album) + await self._show_playable()

    async def _follow(self, api: ApiClient, item_ids: Sequence[str], *, once: bool) -> None:
        """Show the items until all have ended.

        Raises:
            _NotFinished: with `once`, the items are stuck or take too long.
        """
        progress = _Progress(asyncio.get_running_loop().time())
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while item_ids:
                items = [await api.get("items", item_id) for item_id in item_ids]
                stats = await api.get("admin/stats")
                paused = {each["dependency"]: each["why"] for each in stats["paused"]}
                for line in progress.news(items, paused, stages=not self.console.is_terminal):
                    self.console.print(line, markup=False)
                if live.is_started and self.console.is_terminal:
                    live.update(self._table(items), refresh=True)
                if all(item["status"] in _ENDED for item in items):
                    break
                if once:
                    progress.give_up(items, paused, now=asyncio.get_running_loop().time())
                await asyncio.sleep(_POLL_S)

    def _table(self, items: Sequence[Json]) -> Table:
        rows = [(item["track_name"], item["stage"], situation(item), _bar(item)) for item in items]
        return fitting(_COLUMNS, rows, width=self.console.width)

    async def _check(self, album: Album) -> int:
        """Decode every placed file again; return how many are missing or wrong."""
        tools, failed = find_tools(), 0
        for track in album.tracks:
            try:
                found = await find_placed(
                    self.settings.media_root,
                    track.id,
                    expected_ms=track.duration_ms,
                    tolerance_s=self.settings.duration_tolerance_s,
                    tools=tools,
                )
            except CorruptAudio as corrupt:
                self.console.print(f"not right  {track.name}: {corrupt.message}", markup=False)
                failed += 1
                continue
            if found.whole is None:
                self.console.print(f"not there  {track.name}")
                failed += 1
            else:
                self.console.print(
                    f"in place   {_relative(self.settings.media_root / found.whole.uri)} "
                    f" {found.whole.facts.codec}, {found.whole.facts.duration_ms / 1000:.1f} s,"
                    f" {found.whole.facts.size_bytes:,} bytes",
                    markup=False,
                )
        good = len(album.tracks) - failed
        self.console.print(f"\n{good} of {len(album.tracks)} files are in place and decode.")
        return failed

    async def _show_playable(self) -> int:
        """Show how many tracks the catalog server would play; return how many it would not."""
        if not self.settings.bridge_catalog_write:
            self.console.print("BRIDGE_CATALOG_WRITE is off: the catalog names none of them.")
            return 0
        until = asyncio.get_running_loop().time() + _PUBLISHED_S
        playable, wanted = await asyncio.to_thread(self.backends.playable)
        while playable < wanted and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(_POLL_S)
            playable, wanted = await asyncio.to_thread(self.backends.playable)
        self.console.print(f"The catalog names them: playable {playable} of {wanted}.")
        return wanted - playable


class _Progress:
    """The items' last known stages, and the known pauses."""

    def __init__(self, now: float) -> None:
        self._begun = self._moved = now
        self._stages: dict[str, str] = {}
        self._told: dict[str, str] = {}

    def news(self, items: Sequence[Json], paused: Mapping[str, str], *, stages: bool) -> list[str]:
        """A line for each new pause, and for each new stage."""
        lines = [f"waits: {why}" for name, why in paused.items() if name not in self._told]
        self._told = dict(paused)
        for item in items:
            if self._stages.get(item["id"]) != item["stage"]:
                self._stages[item["id"]] = item["stage"]
                self._moved = asyncio.get_running_loop().time()
                if stages:
                    lines.append(f"{item['stage']:<14} {item['track_name']}")
        return lines

    def give_up(self, items: Sequence[Json], paused: Mapping[str, str], *, now: float) -> None:
        """Return if the items may still finish.

        Raises:
            _NotFinished: they are stuck, or take too long.
        """
        if paused and now - self._moved > _STANDSTILL_S:
            raise _NotFinished(f"not finished: {'; '.join(paused.values())}")
        if now - self._begun > _ONCE_TIMEOUT_S:
            waits = {situation(item) for item in items if item["status"] not in _ENDED}
            raise _NotFinished(
                f"not finished after {_ONCE_TIMEOUT_S:.0f} s: {'; '.join(sorted(waits))}"
            )


async def _some_album(catalog: Catalog) -> Album | None:
    """The album of the first track that has one, or None."""
    pages = catalog.pages(Scope(), page_size=100)
    async with aclosing(pages):
        async for _, tracks in pages:
            for track in tracks:
                if track.album_id is not None:
                    return await catalog.album(track.album_id)
    return None


def _relative(path: Path) -> Path:
    """The path relative to the working folder, if it is below that."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _bar(item: Json) -> str:
    if item["stage"] in _DOWNLOADED:
        return "━" * 20
    ratio = (item["progress"] or {}).get("ratio") or 0
    done = int(20 * ratio)
    return "━" * done + "·" * (20 - done)
