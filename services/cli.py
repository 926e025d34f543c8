"""`pezzottify-downloads`: run services, migrate, and talk to a running ingest."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.live import Live

from services import output, ownership, refusals, words
from services.calls import AsJson, Key, Limit, Offset, Url, call, each, show_page
from services.client import ApiClient, Json
from services.registry import every_service
from shared import logs
from shared.errors import DependencyDown
from shared.exits import errors_in_lines
from shared.settings import EVERY_SERVICE, OPTIONAL_SERVICES, SERVICES, Service, bridge_wanted, load
from shared.untrusted import printable

app = typer.Typer(
    help="Fetches the audio files that a Pezzottify catalog knows but does not have.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

bridge = typer.Typer(
    help="What the bridge does at the catalog, by hand.", no_args_is_help=True, add_completion=False
)
app.add_typer(bridge, name="bridge")

app.add_typer(refusals.refused, name="refused")
app.add_typer(refusals.blocked, name="blocked")
app.add_typer(ownership.bus, name="nats")
app.add_typer(ownership.media, name="media")

_POLL_S = 0.5
_REPORT_S = 5.0


@app.command()
def local(
    once: Annotated[
        bool, typer.Option("--once", help="End when the sample album is on disk and checked.")
    ] = False,
    data: Annotated[Path, typer.Option(help="The folder for all state.")] = Path("data"),
    take_over_media: Annotated[
        bool,
        typer.Option(
            "--take-over-media",
            help="Take over a MEDIA_PATH that belongs to a database which is not used any more.",
        ),
    ] = False,
) -> None:
    """Start everything on embedded PostgreSQL and NATS, and follow a sample album."""
    output.print_line(f"starting, with its state in {data.resolve()} …")
    # The embedded servers are an extra that an installation without them does not have; and they
    # take a second to import.
    from services.local.run import run as run_local  # noqa: PLC0415
    from shared import process  # noqa: PLC0415

    process.blank_secrets()
    process.close_to_others()
    with errors_in_lines():
        sys.exit(asyncio.run(run_local(data, once=once, take_over_media=take_over_media)))


@app.command()
def run(
    services: Annotated[
        list[str], typer.Argument(help="Service names, or: all (with the bridge where it is set)")
    ],
) -> None:
    """Run services in this process until SIGTERM."""
    names = [s.replace("-", "_") for s in services]
    if names == ["all"]:
        names = [*SERVICES, *(OPTIONAL_SERVICES if bridge_wanted() else ())]
    unknown = [name for name in names if name not in EVERY_SERVICE]
    if unknown:
        sys.exit(f"no service {', '.join(unknown)}; there are {', '.join(EVERY_SERVICE)}, and: all")
    # What asks a running service needs none of what a service consists of.
    from shared import process  # noqa: PLC0415

    process.main(every_service(*cast("Sequence[Service]", names)))


@app.command()
def migrate(
    wait_s: Annotated[
        float, typer.Option(help="Seconds to wait for PostgreSQL to come up.")
    ] = 60.0,
    logins: Annotated[
        Path | None,
        typer.Option(
            help="A folder with a file database_url_SERVICE for each service: the user of each URL"
            " is made, with its password and the rights of the service."
        ),
    ] = None,
) -> None:
    """Bring the database to this version's schema; safe to run several times at once."""
    with errors_in_lines():
        # Only PostgreSQL is used: NATS_URL may be missing.
        settings = load([], {"NATS_URL": "nats://unused"} | dict(os.environ))
        url = settings.database_url.get_secret_value()
        revision = asyncio.run(_migrate(url, logins, wait_s))
    output.print_line(f"the schema is at {revision}")


async def _migrate(url: str, logins: Path | None, wait_s: float) -> str:
    # Alembic and SQLAlchemy take 35 MB that no running service needs.
    from shared.db.logins import database_urls  # noqa: PLC0415
    from shared.db.migrate import migrate as run_migrations  # noqa: PLC0415

    urls = {} if logins is None else database_urls(logins)
    deadline = asyncio.get_running_loop().time() + wait_s
    while True:
        try:
            return await run_migrations(url, urls)
        except DependencyDown:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            await asyncio.sleep(1)


@bridge.command()
def sync(as_json: AsJson = False) -> None:
    """Publish all placed files once, with the settings of the bridge; NATS is not used."""
    # Only this command needs the bridge's modules.
    from services.bridge.sync import settings_for_sync, sync_ledger  # noqa: PLC0415

    with errors_in_lines():
        settings = settings_for_sync(os.environ)
        logs.configure(settings)
        counts = asyncio.run(sync_ledger(settings))
    if as_json:
        output.print_json(vars(counts))
    else:
        output.print_line(words.synced(vars(counts)))


@app.command()
def track(ids: list[str], as_json: AsJson = False, url: Url = "", key: Key = "") -> None:
    """Request tracks."""

    async def ask(api: ApiClient, id_: str) -> Json:
        return await api.post("track", id_)

    each(ids, ask, url, key, as_json=as_json)


@app.command()
def album(ids: list[str], as_json: AsJson = False, url: Url = "", key: Key = "") -> None:
    """Request every track of albums."""

    async def ask(api: ApiClient, id_: str) -> Json:
        return await api.post("album", id_)

    each(ids, ask, url, key, as_json=as_json)


@app.command("list")
def list_(
    limit: Limit = 50,
    offset: Offset = 0,
    as_json: AsJson = False,
    url: Url = "",
    key: Key = "",
) -> None:
    """Show the items that this key has requested, active first."""
    paging = {"limit": limit, "offset": offset}
    show_page(url, key, "my-requests", output.print_items, as_json=as_json, **paging)


@app.command()
def show(id_: str, as_json: AsJson = False, url: Url = "", key: Key = "") -> None:
    """Show one item with its history."""
    item = call(url, key, lambda api: api.get("items", id_))
    if as_json:
        output.print_json(item)
        return
    output.print_lines(words.item(item))
    output.print_timeline(item["timeline"])


@app.command()
def retry(ids: list[str], as_json: AsJson = False, url: Url = "", key: Key = "") -> None:
    """Return FAILED items to the queue."""

    async def ask(api: ApiClient, id_: str) -> Json:
        return await api.post("items", id_, "retry")

    each(ids, ask, url, key, as_json=as_json)


@app.command()
def cancel(
    ids: list[str],
    for_all: Annotated[
        bool, typer.Option("--for-all", help="Cancel them for all requesters.")
    ] = False,
    as_json: AsJson = False,
    url: Url = "",
    key: Key = "",
) -> None:
    """Withdraw this key's requests for items; without other requesters the work ends."""
    params = {"for_all": "true"} if for_all else {}

    async def ask(api: ApiClient, id_: str) -> Json:
        return await api.delete("items", id_, **params)

    each(ids, ask, url, key, as_json=as_json)


@app.command()
def attention(
    limit: Limit = 50,
    offset: Offset = 0,
    as_json: AsJson = False,
    url: Url = "",
    key: Key = "",
) -> None:
    """Show the items that need a decision, with the candidates."""
    paging = {"limit": limit, "offset": offset}
    show_page(url, key, "admin/attention", output.print_choices, as_json=as_json, **paging)


@app.command()
def approve(id_: str, file: str, as_json: AsJson = False, url: Url = "", key: Key = "") -> None:
    """Choose one of the files that `attention` shows for an item."""

    async def ask(api: ApiClient, id_: str) -> Json:
        return await api.post("admin/items", id_, "approve", body={"file": file})

    each([id_], ask, url, key, as_json=as_json)


@app.command()
def reject(ids: list[str], as_json: AsJson = False, url: Url = "", key: Key = "") -> None:
    """Reject all files that `attention` shows for items: another torrent is tried."""

    async def ask(api: ApiClient, id_: str) -> Json:
        return await api.post("admin/items", id_, "reject")

    each(ids, ask, url, key, as_json=as_json)


@app.command()
def scan(
    scope: Annotated[str, typer.Option(help="all, partial_albums or album")] = "all",
    album_id: Annotated[str | None, typer.Option(help="With scope album.")] = None,
    min_popularity: Annotated[int | None, typer.Option(min=0, max=100)] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="End after so many missing tracks.")
    ] = None,
    queue: Annotated[bool, typer.Option("--queue", help="Queue the missing tracks.")] = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Verify and record the files that the ledger lacks.")
    ] = False,
    cancel_id: Annotated[
        str | None, typer.Option("--cancel", help="Cancel the scan with this id instead.")
    ] = None,
    as_json: AsJson = False,
    url: Url = "",
    key: Key = "",
) -> None:
    """Find tracks without a file and wait for the report; without --queue a dry run.

    Ctrl-C cancels it.
    """
    fields = {
        "scope": scope,
        "album_id": album_id,
        "min_popularity": min_popularity,
        "limit": limit,
        "adopt": adopt or None,
    }
    body = {name: value for name, value in fields.items() if value is not None}

    async def whole(api: ApiClient) -> Json:
        if cancel_id is not None:
            return await api.delete("admin/scan", cancel_id)
        starting = asyncio.ensure_future(
            api.post("admin/queue-all" if queue else "admin/scan", body=body)
        )
        try:
            return await _followed(api, (await asyncio.shield(starting))["scan_id"])
        except asyncio.CancelledError:
            # Ctrl-C, also while the scan is being started: its id comes with the answer.
            return await api.delete("admin/scan", (await starting)["scan_id"])

    report = call(url, key, whole)
    if as_json:
        output.print_json(report)
    else:
        output.print_lines(words.scan(report))
    if report["state"] != "done":
        sys.exit(1)


async def _followed(api: ApiClient, scan_id: str) -> Json:
    """The report of a scan when it has ended; shows its progress until then."""
    clock = asyncio.get_running_loop().time
    printed_at, printed = clock(), ""
    with Live(console=output.errors, auto_refresh=False, transient=True) as live:
        while True:
            report = await api.get("admin/scan", scan_id)
            if report["finished_at"] is not None:
                return report
            line = printable(words.scan_progress(report))
            if output.errors.is_terminal:
                live.update(line, refresh=True)
            elif line != printed and clock() - printed_at > _REPORT_S:
                output.print_error(line)
                printed_at, printed = clock(), line
            await asyncio.sleep(_POLL_S)


@app.command()
def problems(
    kind: Annotated[str | None, typer.Option(help="outside, broken or second")] = None,
    limit: Limit = 50,
    offset: Offset = 0,
    as_json: AsJson = False,
    url: Url = "",
    key: Key = "",
) -> None:
    """Show which files that the catalog names need a correction, and why."""
    show_page(
        url,
        key,
        "admin/presence-problems",
        lambda found: output.print_lines(map(words.presence_problem, found)),
        as_json=as_json,
        limit=limit,
        offset=offset,
        kind=kind,
    )


@app.command()
def stats(as_json: AsJson = False, url: Url = "", key: Key = "") -> None:
    """Show the state of the queue and the health of what it depends on."""
    value = call(url, key, lambda api: api.get("admin/stats"))
    if as_json:
        output.print_json(value)
        return
    output.print_lines(words.stats(value))
