"""`pezzottify-downloads`: run services, migrate, and talk to a running ingest."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar, cast

import typer
from rich.console import Console
from rich.live import Live

from services import words
from services.address import Address, find_address
from services.client import ApiClient, ApiError, Json, NoAnswer
from services.registry import every_service
from services.tables import Column, fitting
from shared import process
from shared.errors import DependencyDown
from shared.process import errors_in_lines
from shared.settings import SERVICES, Service, load
from shared.untrusted import printable

T = TypeVar("T")
Ask: TypeAlias = Callable[[ApiClient], Awaitable[T]]

app = typer.Typer(
    help="Fetches the audio files that a Pezzottify catalog knows but does not have.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_console = Console(highlight=False, markup=False)
_errors = Console(highlight=False, markup=False, stderr=True, soft_wrap=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Url = Annotated[
    str,
    typer.Option(
        envvar="PEZZOTTIFY_DOWNLOADS_URL",
        help="Where ingest serves HTTP; else where `make run` of this folder does, or port 3002.",
    ),
]
Key = Annotated[
    str,
    typer.Option(
        envvar="BOOTSTRAP_ADMIN_KEY",
        help="The API key; else that of `make run` of this folder.",
        show_default=False,
    ),
]
Limit = Annotated[int, typer.Option(min=1, max=200)]
Offset = Annotated[int, typer.Option(min=0)]

# An id is of no use cut short; everything else may be.
_ID = Column(name="id", rank=0, least=36)
_ITEMS = (
    _ID,
    Column(name="track", rank=1, least=14),
    Column(name="artist", rank=4, least=10),
    Column(name="stage", rank=3, least=11),
    Column(name="position", rank=5, least=8),
    Column(name="waits for", rank=2, least=20),
)
_TIMELINE = (
    Column(name="at", rank=2, least=19),
    Column(name="service", rank=3, least=14),
    Column(name="stage", rank=0, least=14),
    Column(name="reason", rank=1, least=20, wraps=True),
)
_CHOICES = (
    _ID,
    Column(name="track", rank=2, least=14),
    Column(name="decided at", rank=3, least=10),
    Column(name="candidates", rank=1, least=20, wraps=True),
)
_LOOK_S = 0.5
_SPEAK_S = 5.0


@app.command()
def local(
    once: Annotated[
        bool, typer.Option("--once", help="End when the sample album is on disk and checked.")
    ] = False,
    data: Annotated[Path, typer.Option(help="Where all state is kept.")] = Path("data"),
) -> None:
    """Start everything on embedded PostgreSQL and NATS, and show a sample album arriving."""
    _print_line(f"starting, with its state in {data.resolve()} …")
    # The embedded servers are an extra that an installation without them does not have; and they
    # take a second to import.
    from services.local.run import run as run_local  # noqa: PLC0415

    with errors_in_lines():
        sys.exit(asyncio.run(run_local(data, once=once)))


@app.command()
def run(
    services: Annotated[list[str], typer.Argument(help="Service names, or: all")],
) -> None:
    """Run services in this process until SIGTERM."""
    names = list(SERVICES) if services == ["all"] else [s.replace("-", "_") for s in services]
    unknown = [name for name in names if name not in SERVICES]
    if unknown:
        sys.exit(f"no service {', '.join(unknown)}; there are {', '.join(SERVICES)}, and: all")
    process.main(every_service(*cast("Sequence[Service]", names)))


@app.command()
def migrate(
    wait_s: Annotated[
        float, typer.Option(help="Seconds to wait for PostgreSQL to come up.")
    ] = 60.0,
) -> None:
    """Bring the database to this version's schema; safe to run several times at once."""
    with errors_in_lines():
        # Only PostgreSQL is talked to; what else the settings want is not asked for here.
        settings = load([], {"NATS_URL": "nats://unused"} | dict(os.environ))
        revision = asyncio.run(_migrate(settings.database_url.get_secret_value(), wait_s))
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
def track(ids: list[str], as_json: AsJson = False, url: Url = "", key: Key = "") -> None:
    """Ask for tracks."""

    async def ask(api: ApiClient, id_: str) -> Json:
        return await api.post("track", id_)

    _each(ids, ask, url, key, as_json=as_json)


@app.command()
def album(ids: list[str], as_json: AsJson = False, url: Url = "", key: Key = "") -> None:
    """Ask for every track of albums."""

    async def ask(api: ApiClient, id_: str) -> Json:
        return await api.post("album", id_)

    _each(ids, ask, url, key, as_json=as_json)


@app.command("list")
def list_(
    limit: Limit = 50,
    offset: Offset = 0,
    as_json: AsJson = False,
    url: Url = "",
    key: Key = "",
) -> None:
    """Show the key holder's items, active first."""
    page = _call(url, key, lambda api: api.get("my-requests", limit=limit, offset=offset))
    if as_json:
        _print_json(page)
    else:
        _print_items(page["items"])
        _print_rest(page)


@app.command()
def show(id_: str, as_json: AsJson = False, url: Url = "", key: Key = "") -> None:
    """Show one item with everything that happened to it."""
    item = _call(url, key, lambda api: api.get("items", id_))
    if as_json:
        _print_json(item)
        return
    for line in words.item(item):
        _print_line(line)
    rows = [
        (words.clock_time(entry["at"]), entry["service"], entry["stage"], entry["reason"] or "")
        for entry in item["timeline"]
    ]
    _console.print(fitting(_TIMELINE, rows, width=_console.width))


@app.command()
def retry(ids: list[str], as_json: AsJson = False, url: Url = "", key: Key = "") -> None:
    """Put FAILED items back into the queue."""

    async def ask(api: ApiClient, id_: str) -> Json:
        return await api.post("items", id_, "retry")

    _each(ids, ask, url, key, as_json=as_json)


@app.command()
def cancel(
    ids: list[str],
    for_all: Annotated[
        bool, typer.Option("--for-all", help="Also for others who asked for them.")
    ] = False,
    as_json: AsJson = False,
    url: Url = "",
    key: Key = "",
) -> None:
    """Withdraw the key holder's request for items; nobody else waits: the work ends."""
    params = {"for_all": "true"} if for_all else {}

    async def ask(api: ApiClient, id_: str) -> Json:
        return await api.delete("items", id_, **params)

    _each(ids, ask, url, key, as_json=as_json)


@app.command()
def attention(
    limit: Limit = 50,
    offset: Offset = 0,
    as_json: AsJson = False,
    url: Url = "",
    key: Key = "",
) -> None:
    """Show what waits for a person, with what there is to choose from."""
    page = _call(url, key, lambda api: api.get("admin/attention", limit=limit, offset=offset))
    if as_json:
        _print_json(page)
        return
    rows = [
        (
            item["id"],
            item["track_name"],
            item["decided_at"],
            "\n".join(str(each.get("file") or each.get("title")) for each in item["candidates"]),
        )
        for item in page["items"]
    ]
    _console.print(fitting(_CHOICES, rows, width=_console.width))
    _print_rest(page)


@app.command()
def approve(id_: str, file: str, as_json: AsJson = False, url: Url = "", key: Key = "") -> None:
    """Say which of the files that `attention` shows a held item is."""

    async def ask(api: ApiClient, id_: str) -> Json:
        return await api.post("admin/items", id_, "approve", body={"file": file})

    _each([id_], ask, url, key, as_json=as_json)


@app.command()
def reject(ids: list[str], as_json: AsJson = False, url: Url = "", key: Key = "") -> None:
    """Say that held items are none of the files: another torrent is tried."""

    async def ask(api: ApiClient, id_: str) -> Json:
        return await api.post("admin/items", id_, "reject")

    _each(ids, ask, url, key, as_json=as_json)


@app.command()
def scan(
    scope: Annotated[str, typer.Option(help="all, partial_albums or album")] = "all",
    album_id: Annotated[str | None, typer.Option(help="With scope album.")] = None,
    min_popularity: Annotated[int | None, typer.Option(min=0, max=100)] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many missing.")] = None,
    queue: Annotated[bool, typer.Option("--queue", help="Queue what is missing.")] = False,
    cancel_id: Annotated[
        str | None, typer.Option("--cancel", help="End the scan with this id instead.")
    ] = None,
    as_json: AsJson = False,
    url: Url = "",
    key: Key = "",
) -> None:
    """Look for tracks without a file and wait for the report; without --queue a dry run.

    Ctrl-C cancels it.
    """
    fields = {
        "scope": scope,
        "album_id": album_id,
        "min_popularity": min_popularity,
        "limit": limit,
    }
    body = {name: value for name, value in fields.items() if value is not None}

    async def whole(api: ApiClient) -> Json:
        if cancel_id is not None:
            return await api.delete("admin/scan", cancel_id)
        started = await api.post("admin/queue-all" if queue else "admin/scan", body=body)
        try:
            return await _followed(api, started["scan_id"])
        except asyncio.CancelledError:
            # A Ctrl-C: what was begun for this terminal ends with it.
            return await api.delete("admin/scan", started["scan_id"])

    report = _call(url, key, whole)
    if as_json:
        _print_json(report)
    else:
        for line in words.scan(report):
            _print_line(line)
    if report["state"] != "done":
        sys.exit(1)


async def _followed(api: ApiClient, scan_id: str) -> Json:
    """The report of a scan at its end; says meanwhile how far it is, or what keeps it."""
    clock = asyncio.get_running_loop().time
    spoken_at, said = clock(), ""
    with Live(console=_errors, auto_refresh=False, transient=True) as live:
        while True:
            report = await api.get("admin/scan", scan_id)
            if report["finished_at"] is not None:
                return report
            line = printable(words.scan_progress(report))
            if _errors.is_terminal:
                live.update(line, refresh=True)
            elif line != said and clock() - spoken_at > _SPEAK_S:
                _errors.print(line)
                spoken_at, said = clock(), line
            await asyncio.sleep(_LOOK_S)


@app.command()
def stats(as_json: AsJson = False, url: Url = "", key: Key = "") -> None:
    """Say how the queue, Torrentino and everything else is."""
    value = _call(url, key, lambda api: api.get("admin/stats"))
    if as_json:
        _print_json(value)
        return
    for line in words.stats(value):
        _print_line(line)


def _call(url: str, key: str, ask: Ask[T]) -> T:
    with errors_in_lines():
        address = find_address(url, key)
        # asyncio then cancels what is asked, which ends in order.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return asyncio.run(_asked(address, ask))


async def _asked(address: Address, ask: Ask[T]) -> T:
    api = ApiClient(address.url, address.key)
    try:
        return await ask(api)
    finally:
        await api.close()


def _each(
    ids: Sequence[str],
    ask: Callable[[ApiClient, str], Awaitable[Json]],
    url: str,
    key: str,
    *,
    as_json: bool,
) -> None:
    """Ask for each id and print what is answered; one that is refused does not stop the others."""

    async def all_of_them(api: ApiClient) -> int:
        refused = 0
        for id_ in ids:
            try:
                _print_answer(await ask(api, id_), as_json=as_json)
            except NoAnswer:
                raise
            except ApiError as error:
                refused += 1
                _errors.print(printable(f"{id_}: {error}"))
        return refused

    if _call(url, key, all_of_them):
        sys.exit(1)


def _print_answer(answer: Json, *, as_json: bool) -> None:
    if as_json:
        _print_json(answer)
        return
    _print_line(words.answer(answer))
    items = answer.get("items") or ([answer["item"]] if answer.get("item") else [])
    if items:
        _print_items(items)


def _print_json(value: Json) -> None:
    print(json.dumps(value))


def _print_line(line: str) -> None:
    _console.print(printable(line), soft_wrap=True)


def _print_items(items: Sequence[Json]) -> None:
    rows = [
        (
            item["id"],
            item["track_name"],
            item["artist_name"] or "",
            item["stage"],
            "" if item["queue_position"] is None else str(item["queue_position"]),
            words.situation(item),
        )
        for item in items
    ]
    _console.print(fitting(_ITEMS, rows, width=_console.width))


def _print_rest(page: Json) -> None:
    if line := words.rest(page):
        _print_line(line)
