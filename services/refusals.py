"""The commands for refused downloads and for blocked sources."""

from __future__ import annotations

from itertools import chain
from typing import Annotated

import typer

from services import output, words
from services.calls import AsJson, Key, Limit, Offset, Url, call, each, show_page
from services.client import ApiClient, Json

refused = typer.Typer(
    help="Refused downloads that are kept: list, release or discard them.",
    no_args_is_help=True,
    add_completion=False,
)
blocked = typer.Typer(
    help="Blocked torrents and releases: list them, or lift a block.",
    no_args_is_help=True,
    add_completion=False,
)

Track = Annotated[str | None, typer.Option("--track", help="Only of the track with this id.")]


@refused.command("list")
def list_refused(
    track: Track = None,
    limit: Limit = 50,
    offset: Offset = 0,
    as_json: AsJson = False,
    url: Url = "",
    key: Key = "",
) -> None:
    """Show the refused downloads with their reasons, newest first."""
    show_page(
        url,
        key,
        "admin/refused",
        lambda files: output.print_lines(chain.from_iterable(map(words.refused_file, files))),
        as_json=as_json,
        limit=limit,
        offset=offset,
        track_id=track,
    )


@refused.command()
def release(ids: list[str], as_json: AsJson = False, url: Url = "", key: Key = "") -> None:
    """Place refused downloads for their tracks, whatever their verdict says."""

    async def ask(api: ApiClient, id_: str) -> Json:
        return await api.post("admin/refused", id_, "release")

    each(ids, ask, url, key, as_json=as_json)


@refused.command()
def discard(ids: list[str], as_json: AsJson = False, url: Url = "", key: Key = "") -> None:
    """Throw refused downloads away before their time."""

    async def ask(api: ApiClient, id_: str) -> Json:
        return await api.delete("admin/refused", id_)

    each(ids, ask, url, key, as_json=as_json)


@blocked.command("list")
def list_blocked(
    track: Track = None,
    limit: Limit = 50,
    offset: Offset = 0,
    as_json: AsJson = False,
    url: Url = "",
    key: Key = "",
) -> None:
    """Show the blocked sources with their reasons, newest first."""
    show_page(
        url,
        key,
        "admin/blocked",
        lambda blocks: output.print_lines(chain.from_iterable(map(words.blocked_source, blocks))),
        as_json=as_json,
        limit=limit,
        offset=offset,
        track_id=track,
    )


@blocked.command()
def lift(
    source: str, track: Track = None, as_json: AsJson = False, url: Url = "", key: Key = ""
) -> None:
    """Lift the block of a source, for one track or for all: it may be chosen again."""
    body: Json = {"source": source} | ({} if track is None else {"track_id": track})
    given = call(url, key, lambda api: api.post("admin/blocked/lift", body=body))
    if as_json:
        output.print_json(given)
    else:
        output.print_line(words.lifted(given))
