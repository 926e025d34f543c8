"""What the bridge does at a running catalog server: requests, availability, what plays."""

from __future__ import annotations

from shared.app import App
from shared.duty import Duty


def duties(app: App) -> list[Duty]:
    """The duties that talk to the catalog server, wired."""
    return []
