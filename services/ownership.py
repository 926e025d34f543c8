"""The commands that say to which database a media root and the streams of NATS belong."""

from __future__ import annotations

import asyncio
import os

import typer

from services import output
from shared.exits import errors_in_lines
from shared.settings import load

bus = typer.Typer(
    help="What belongs to this database at NATS, by hand.",
    no_args_is_help=True,
    add_completion=False,
)
media = typer.Typer(
    help="What belongs to this database, by hand.", no_args_is_help=True, add_completion=False
)


@media.command("take-over")
def take_over() -> None:
    """Make MEDIA_PATH belong to this database; for when the one that it belonged to is gone."""
    # Only this command needs the database here.
    from services.take_over import take_over_media  # noqa: PLC0415

    with errors_in_lines():
        # NATS is not used, and may be missing.
        settings = load([], {"NATS_URL": "nats://unused"} | dict(os.environ))
        asyncio.run(take_over_media(settings))
    output.print_line(f"{settings.media_path} belongs to this database now")


@bus.command("take-over")
def take_over_streams() -> None:
    """Make the streams at NATS_URL belong to this database; for when the other one is gone."""
    # Only this command needs the database and NATS here.
    from services.take_over import take_over_nats  # noqa: PLC0415

    with errors_in_lines():
        asyncio.run(take_over_nats(load([])))
    output.print_line("the streams belong to this database now")
