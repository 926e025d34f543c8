"""What `make run` shows: the sample album on its way, live, and the files at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from services.client import ApiClient, ApiError, Json
from shared.catalog.models import Album
from shared.catalog.sqlite import Catalog
from shared.errors import CorruptAudio
from shared.local.sample import Sample
from shared.media.existing import look
from shared.media.tools import find_tools
from shared.states import Status
from shared.web import WebServer

_LOOK_S = 0.25
# Far beyond what the sample needs; `--once` has to end.
_PATIENCE_S = 180.0
_ENDED = (Status.COMPLETED, Status.FAILED)


@dataclass(frozen=True, kw_only=True)
class Show:
    """Queues the sample album over HTTP, as a user would, and follows it."""

    console: Console
    media_path: Path
    server: WebServer
    admin_key: str
    tolerance_s: float

    async def run(self, sample: Sample | None, *, once: bool, log: Path) -> int:
        """Show the album arriving; 0 when every file of it is in place and decodes."""
        await self.server.started.wait()
        host = f"[{self.server.host}]" if ":" in self.server.host else self.server.host
        url = f"http://{host}:{self.server.port}"
        api = ApiClient(url, self.admin_key)
        try:
            self.console.print(f"API: {url}   admin key: {self.admin_key}   log: {log}\n")
            if sample is None:
                self.console.print("No sample with a catalog of your own. Ctrl-C ends.")
                return 1 if once else 0
            async with asyncio.timeout(_PATIENCE_S if once else None):
                failed = await self._album(api, sample)
        except TimeoutError:
            self.console.print(f"not finished after {_PATIENCE_S:.0f} s; see {log}")
            return 1
        except ApiError as error:
            self.console.print(f"{error}; see {log}")
            return 1
        finally:
            await api.close()
        if not once:
            self.console.print("\nCtrl-C ends; the state is kept.")
        return 1 if failed else 0

    async def _album(self, api: ApiClient, sample: Sample) -> int:
        catalog = Catalog(sample.catalog)
        try:
            album = await catalog.album(sample.album_id)
        finally:
            await catalog.close()
        assert album is not None, "the sample has its album"
        answer = await api.post(f"album/{album.id}")
        self.console.print(
            f"{album.artist} - {album.name}: {answer['queued']} queued,"
            f" {answer['already_queued']} already queued,"
            f" {answer['already_available']} already available\n"
        )
        await self._follow(api, [item["id"] for item in answer["items"]])
        return await self._check(album)

    async def _follow(self, api: ApiClient, item_ids: Sequence[str]) -> None:
        last: dict[str, str] = {}
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while item_ids:
                items = [await api.get(f"items/{item_id}") for item_id in item_ids]
                self._tell(items, last)
                if live.is_started and self.console.is_terminal:
                    live.update(_table(items), refresh=True)
                if all(item["status"] in _ENDED for item in items):
                    break
                await asyncio.sleep(_LOOK_S)

    def _tell(self, items: Sequence[Json], last: dict[str, str]) -> None:
        """Without a terminal that redraws: one line for each new stage."""
        for item in items:
            if last.get(item["id"]) != item["stage"]:
                last[item["id"]] = item["stage"]
                if not self.console.is_terminal:
                    self.console.print(f"{item['stage']:<14} {item['track_name']}")

    async def _check(self, album: Album) -> int:
        """Decode every file once more, from where a reader finds it; how many are not right."""
        tools, failed = find_tools(), 0
        for track in album.tracks:
            try:
                found = await look(
                    self.media_path,
                    track.id,
                    expected_ms=track.duration_ms,
                    tolerance_s=self.tolerance_s,
                    tools=tools,
                )
            except CorruptAudio as corrupt:
                self.console.print(f"not right  {track.name}: {corrupt.message}")
                failed += 1
                continue
            if found.facts is None:
                self.console.print(f"not there  {track.name}")
                failed += 1
            else:
                self.console.print(
                    f"in place   {found.path}  {found.facts.codec},"
                    f" {found.facts.duration_ms / 1000:.1f} s, {found.facts.size_bytes:,} bytes"
                )
        good = len(album.tracks) - failed
        self.console.print(f"\n{good} of {len(album.tracks)} files are in place and decode.")
        return failed


def _table(items: Sequence[Json]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("track", "stage", "progress", "why"):
        table.add_column(name, no_wrap=True)
    for item in items:
        table.add_row(item["track_name"], item["stage"], _bar(item), item["reason"] or "")
    return table


def _bar(item: Json) -> str:
    if item["status"] == Status.COMPLETED:
        return "━" * 20
    ratio = (item["progress"] or {}).get("ratio") or 0
    done = int(20 * ratio)
    return "━" * done + "·" * (20 - done)
