"""`pezzottify-downloads`: run services, migrate, and talk to a running ingest."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.client import ApiClient, ApiError
from services.every import every_service
from shared import runtime
from shared.errors import DependencyDown, DownloadsError
from shared.settings import SERVICES, Service, SettingsError, load, secret
from shared.text import printable

Json: TypeAlias = dict[str, Any]

app = typer.Typer(
    help="Fetches the audio files that a Pezzottify catalog knows but does not have.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_console = Console(highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Url = Annotated[
    str, typer.Option(envvar="PEZZOTTIFY_DOWNLOADS_URL", help="Where ingest serves HTTP.")
]
Key = Annotated[
    str, typer.Option(envvar="BOOTSTRAP_ADMIN_KEY", help="The API key.", show_default=False)
]
_DEFAULT_URL = "http://127.0.0.1:3002"


@app.command()
def local(
    once: Annotated[
        bool, typer.Option("--once", help="End when the sample album is on disk and checked.")
    ] = False,
    data: Annotated[Path, typer.Option(help="Where all state is kept.")] = Path("data"),
) -> None:
    """Start everything on embedded PostgreSQL and NATS, and show a sample album arriving."""
    # The embedded servers are an extra that an installation without them does not have.
    from services.local import run as run_local  # noqa: PLC0415
    from shared.local.servers import ServerFailed  # noqa: PLC0415

    try:
        sys.exit(asyncio.run(run_local(data, once=once)))
    except* (SettingsError, ServerFailed, DownloadsError) as group:
        sys.exit("\n".join(str(error) for error in group.exceptions))


@app.command()
def run(
    services: Annotated[list[str], typer.Argument(help="Service names, or: all")],
) -> None:
    """Run services in this process until SIGTERM."""
    names = list(SERVICES) if services == ["all"] else [s.replace("-", "_") for s in services]
    unknown = [name for name in names if name not in SERVICES]
    if unknown:
        sys.exit(f"no service {', '.join(unknown)}; there are {', '.join(SERVICES)}, and: all")
    runtime.main(every_service(*cast("Sequence[Service]", names)))


@app.command()
def migrate(
    wait_s: Annotated[
        float, typer.Option(help="Seconds to wait for PostgreSQL to come up.")
    ] = 60.0,
) -> None:
    """Bring the database to this version's schema; safe to run several times at once."""
    try:
        # Only PostgreSQL is talked to; what else the settings want is not asked for here.
        settings = load([], {"NATS_URL": "nats://unused"} | dict(os.environ))
        revision = asyncio.run(_migrate(settings.database_url.get_secret_value(), wait_s))
    except (SettingsError, DownloadsError) as error:
        sys.exit(str(error))
    _console.print(f"the schema is at {revision}")


async def _migrate(url: str, wait_s: float) -> str:
    # Alembic and SQLAlchemy take 35 MB that no running service needs.
    from shared.db.migrate import migrate as run_migrations  # noqa: PLC0415

    deadline = asyncio.get_running_loop().time() + wait_s
    while True:
        try:
            return await run_migrations(url)
        except DependencyDown:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            await asyncio.sleep(1)


@app.command()
def track(ids: list[str], as_json: AsJson = False, url: Url = _DEFAULT_URL, key: Key = "") -> None:
    """Ask for tracks."""
    _each([f"track/{id_}" for id_ in ids], url, key, as_json=as_json)


@app.command()
def album(ids: list[str], as_json: AsJson = False, url: Url = _DEFAULT_URL, key: Key = "") -> None:
    """Ask for every track of albums."""
    _each([f"album/{id_}" for id_ in ids], url, key, as_json=as_json)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    offset: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
    url: Url = _DEFAULT_URL,
    key: Key = "",
) -> None:
    """Show the key holder's items, active first."""
    page = _call(url, key, lambda api: api.get("my-requests", limit=limit, offset=offset))
    _print(page, as_json=as_json, table=_items_table(page["items"]))


@app.command()
def show(id_: str, as_json: AsJson = False, url: Url = _DEFAULT_URL, key: Key = "") -> None:
    """Show one item with everything that happened to it."""
    item = _call(url, key, lambda api: api.get(f"items/{id_}"))
    table = Table(box=None, pad_edge=False)
    for name in ("at", "service", "stage", "reason"):
        table.add_column(name)
    for entry in item["timeline"]:
        reason = _shown(entry["reason"] or "")
        table.add_row(f"{entry['at']:.3f}", entry["service"], entry["stage"], reason)
    _print(item, as_json=as_json, table=table)


@app.command()
def retry(ids: list[str], as_json: AsJson = False, url: Url = _DEFAULT_URL, key: Key = "") -> None:
    """Put FAILED items back into the queue."""
    for id_ in ids:
        answer = _call(url, key, lambda api, id_=id_: api.post(f"items/{id_}/retry"))  # type: ignore[misc]
        _print(answer, as_json=as_json, table=_items_table([answer["item"]]))


@app.command()
def cancel(
    ids: list[str],
    for_all: Annotated[
        bool, typer.Option("--for-all", help="Also for others who asked for them.")
    ] = False,
    as_json: AsJson = False,
    url: Url = _DEFAULT_URL,
    key: Key = "",
) -> None:
    """Withdraw the key holder's request for items; nobody else waits: the work ends."""
    params = {"for_all": "true"} if for_all else {}
    for id_ in ids:
        answer = _call(url, key, lambda api, id_=id_: api.delete(f"items/{id_}", **params))  # type: ignore[misc]
        _print(answer, as_json=as_json, table=_items_table([answer["item"]]))


@app.command()
def attention(
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    as_json: AsJson = False,
    url: Url = _DEFAULT_URL,
    key: Key = "",
) -> None:
    """Show what waits for a person, with what there is to choose from."""
    page = _call(url, key, lambda api: api.get("admin/attention", limit=limit))
    table = Table(box=None, pad_edge=False)
    table.add_column("id", no_wrap=True, overflow="fold", min_width=36)
    for name in ("track", "decided at", "candidates"):
        table.add_column(name)
    for item in page["items"]:
        choices = [str(each.get("file") or each.get("title")) for each in item["candidates"]]
        table.add_row(
            item["id"], _shown(item["track_name"]), item["decided_at"], _shown("\n".join(choices))
        )
    _print(page, as_json=as_json, table=table)


@app.command()
def approve(
    id_: str, file: str, as_json: AsJson = False, url: Url = _DEFAULT_URL, key: Key = ""
) -> None:
    """Say which of the files that `attention` shows a held item is."""
    path = f"admin/items/{id_}/approve"
    answer = _call(url, key, lambda api: api.post(path, {"file": file}))
    _print(answer, as_json=as_json, table=_items_table([answer["item"]]))


@app.command()
def reject(id_: str, as_json: AsJson = False, url: Url = _DEFAULT_URL, key: Key = "") -> None:
    """Say that a held item is none of the files: another torrent is tried."""
    answer = _call(url, key, lambda api: api.post(f"admin/items/{id_}/reject"))
    _print(answer, as_json=as_json, table=_items_table([answer["item"]]))


@app.command()
def scan(
    scope: Annotated[str, typer.Option(help="all, partial_albums or album")] = "all",
    album_id: Annotated[str | None, typer.Option(help="With scope album.")] = None,
    min_popularity: Annotated[int | None, typer.Option(min=0, max=100)] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many missing.")] = None,
    queue: Annotated[bool, typer.Option("--queue", help="Queue what is missing.")] = False,
    as_json: AsJson = False,
    url: Url = _DEFAULT_URL,
    key: Key = "",
) -> None:
    """Look for tracks without a file and wait for the report; without --queue a dry run."""
    fields = {
        "scope": scope,
        "album_id": album_id,
        "min_popularity": min_popularity,
        "limit": limit,
    }
    body = {name: value for name, value in fields.items() if value is not None}

    async def whole(api: ApiClient) -> Json:
        started = await api.post("admin/queue-all" if queue else "admin/scan", body)
        while True:
            report = await api.get(f"admin/scan/{started['scan_id']}")
            if report["finished_at"] is not None:
                return report
            await asyncio.sleep(0.5)

    report = _call(url, key, whole)
    shown = {name: value for name, value in report.items() if name != "sample"}
    _print(report, as_json=as_json, table=_fields_table(shown))


@app.command()
def stats(as_json: AsJson = False, url: Url = _DEFAULT_URL, key: Key = "") -> None:
    """Show counts, ages, rates, tickets and health."""
    value = _call(url, key, lambda api: api.get("admin/stats"))
    _print(value, as_json=as_json, table=_fields_table(value))


def _call(url: str, key: str, ask: Callable[[ApiClient], Awaitable[Json]]) -> Json:
    async def asking() -> Json:
        api = ApiClient(url, key or secret("bootstrap_admin_key"))
        try:
            return await ask(api)
        finally:
            await api.close()

    try:
        return asyncio.run(asking())
    except (ApiError, SettingsError) as error:
        sys.exit(str(error))


def _each(paths: Sequence[str], url: str, key: str, *, as_json: bool) -> None:
    for path in paths:
        answer = _call(url, key, lambda api, path=path: api.post(path))  # type: ignore[misc]
        items = answer.get("items") or ([answer["item"]] if answer.get("item") else [])
        _print(
            answer, as_json=as_json, table=_items_table(items) if items else _fields_table(answer)
        )


def _print(value: Json, *, as_json: bool, table: Table) -> None:
    if as_json:
        print(json.dumps(value))
    else:
        _console.print(table)


def _items_table(items: Sequence[Json]) -> Table:
    table = Table(box=None, pad_edge=False)
    # An id is of no use cut short; everything else may be.
    table.add_column("id", no_wrap=True, overflow="fold", min_width=36)
    for name in ("track", "artist", "stage", "position", "why"):
        table.add_column(name)
    for item in items:
        position = item["queue_position"]
        table.add_row(
            item["id"],
            _shown(item["track_name"]),
            _shown(item["artist_name"] or ""),
            item["stage"],
            "" if position is None else str(position),
            _shown(item["reason"] or ""),
        )
    return table


def _shown(text: str) -> str:
    """As it is, whoever it is from: no command to the terminal, and no markup of rich."""
    return escape(printable(text, keep="\n"))


def _fields_table(value: Json) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, field in value.items():
        text = json.dumps(field) if isinstance(field, dict | list) else str(field)
        table.add_row(name, _shown(text))
    return table


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
