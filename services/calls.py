"""The options of the commands that talk to ingest, and their calls."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeAlias, TypeVar

import typer

from services import output
from services.address import Address, find_address
from services.client import ApiClient, ApiError, Json, NoAnswer
from shared.exits import errors_in_lines

T = TypeVar("T")
Ask: TypeAlias = Callable[[ApiClient], Awaitable[T]]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Url = Annotated[
    str,
    typer.Option(
        envvar="PEZZOTTIFY_DOWNLOADS_URL",
        help="The address of ingest; by default that of `make run` in this folder, or port 3002.",
    ),
]
Key = Annotated[
    str,
    typer.Option(
        envvar="BOOTSTRAP_ADMIN_KEY",
        help="The API key; by default that of `make run` in this folder.",
        show_default=False,
    ),
]
Limit = Annotated[int, typer.Option(min=1, max=200)]
Offset = Annotated[int, typer.Option(min=0)]


def call(url: str, key: str, ask: Ask[T]) -> T:
    """What `ask` returns, which is given a client of ingest; an error ends the program."""
    with errors_in_lines():
        address = find_address(url, key)
        # With it, asyncio turns Ctrl-C into a cancellation.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return asyncio.run(_answer(address, ask))


def show_page(
    url: str,
    key: str,
    route: str,
    show: Callable[[Sequence[Json]], None],
    *,
    as_json: bool,
    **params: str | int | None,
) -> None:
    """Print a page of a list as JSON, or by `show`, followed by how to see the rest.

    A parameter that is None is not sent.
    """
    given = {name: value for name, value in params.items() if value is not None}
    page = call(url, key, lambda api: api.get(route, **given))
    if as_json:
        output.print_json(page)
    else:
        show(page["items"])
        output.print_rest(page)


async def _answer(address: Address, ask: Ask[T]) -> T:
    api = ApiClient(address.url, address.key)
    try:
        return await ask(api)
    finally:
        await api.close()


def each(
    ids: Sequence[str],
    ask: Callable[[ApiClient, str], Awaitable[Json]],
    url: str,
    key: str,
    *,
    as_json: bool,
) -> None:
    """Send a request for each id and print the answers; a refusal does not stop the others."""

    async def all_of_them(api: ApiClient) -> int:
        refused = 0
        for id_ in ids:
            try:
                output.print_answer(await ask(api, id_), as_json=as_json)
            except NoAnswer:
                raise
            except ApiError as error:
                refused += 1
                output.print_error(f"{id_}: {error}")
        return refused

    if call(url, key, all_of_them):
        sys.exit(1)
