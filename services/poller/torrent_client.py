"""Torrentino's torrent client, which may be away while Torrentino answers.

That is an outage behind Torrentino: only what needs the client waits.
"""

from __future__ import annotations

from shared.errors import Unavailable
from shared.health import Health
from shared.torrentino.client import TorrentinoClient


class TorrentClient:
    """Whether it answers, as this process knows."""

    def __init__(self, client: TorrentinoClient, health: Health) -> None:
        self._client = client
        self._health = health
        self._breaker = health.breaker("torrent_client")

    @property
    def ok(self) -> bool:
        """Whether it has answered the last time that it was asked."""
        return self._breaker.ok

    def is_away(self, away: Unavailable) -> bool:
        """Whether it was the client that did not answer; noted if so."""
        if away.dependency != self._breaker.dependency:
            return False
        self._health.failed(away)
        return True

    async def answers(self) -> bool:
        """As `ok`; one that is known to be away is asked again when its pause is over.

        Raises:
            Unavailable: Torrentino itself is away.
        """
        if not self.ok and self._breaker.wait_s() == 0:
            with self._breaker.probing():
                try:
                    await self._client.client_answers()
                except Unavailable as away:
                    if not self.is_away(away):
                        raise
                else:
                    self._health.up("torrent_client")
        return self.ok
