"""Every NATS subject and stream, as `contract.md` names them."""

from __future__ import annotations

from typing import Literal

PREFIX = "pezzottify.download"

REQUEST_TRACK = f"{PREFIX}.request.track"
REQUEST_ALBUM = f"{PREFIX}.request.album"
REQUEST_CANCEL = f"{PREFIX}.request.cancel"
COMMAND_SCAN = f"{PREFIX}.command.scan"
DEAD = f"{PREFIX}.dead"
EVENT = f"{PREFIX}.event"

REQUESTS_STREAM = "PEZZOTTIFY_DOWNLOAD_REQUESTS"
EVENTS_STREAM = "PEZZOTTIFY_DOWNLOAD_EVENTS"
DEAD_STREAM = "PEZZOTTIFY_DOWNLOAD_DEAD"

# What a wake-up is about. `scan` is between ingest and the watchdog, like the contract's three.
Wake = Literal["ticket", "poll", "fetch", "scan"]


def wake_subject(kind: Wake) -> str:
    """The core NATS subject of a wake-up."""
    return f"{PREFIX}.work.{kind}"
