"""Publishing: `tracks.audio_uri` of the catalog names the files that lie in the media root."""

from __future__ import annotations

from shared.app import App
from shared.duty import Duty


def duties(app: App) -> list[Duty]:
    """The duties that write to the catalog, wired."""
    return []
