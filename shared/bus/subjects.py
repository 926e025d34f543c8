"""Every NATS subject and stream, as `contract.md` names them."""

from __future__ import annotations

import re
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

_MAX_TOKEN = 128

# What a wake-up is about. `scan` is between ingest and the watchdog; the contract has the others.
Wake = Literal["ticket", "poll", "fetch", "scan"]


def wake_subject(kind: Wake) -> str:
    """The core NATS subject of a wake-up."""
    return f"{PREFIX}.work.{kind}"


def event_subject(kind: str, *ids: str | None) -> str:
    """The subject of an event; what NATS does not take in a token of a subject becomes `_`."""
    return ".".join([EVENT, kind, *(_token(each) for each in ids)])


def _token(value: str | None) -> str:
    return re.sub(r"[^0-9A-Za-z_-]", "_", value or "_")[:_MAX_TOKEN]
