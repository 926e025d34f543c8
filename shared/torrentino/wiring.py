"""The client as the settings describe it."""

from __future__ import annotations

from shared.settings import Settings
from shared.torrentino.client import TorrentinoClient


def torrentino_client(settings: Settings) -> TorrentinoClient:
    """A client for TORRENTINO_URL; opens no connection.

    Raises:
        Misconfigured: the URL or the key cannot be used.
    """
    assert settings.torrentino_url is not None, "required by this service"
    key = settings.torrentino_api_key
    return TorrentinoClient(
        base_url=settings.torrentino_url,
        api_key=key.get_secret_value() if key else None,
        accepted=settings.accepted,
    )
