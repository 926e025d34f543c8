"""How many of the placed files are published and playable, for /metrics."""

from __future__ import annotations

from shared.app import App
from shared.db.pool import Database
from shared.db.publication import publication
from shared.duty import Duty, PeriodicDuty
from shared.metrics import FILES, FILES_NOT_PLAYABLE

_EVERY_S = 15.0


class Figures:
    """Counts the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run_once(self) -> int:
        """Count, and show it; returns 0, for there is never more to do.

        Raises:
            DependencyDown: PostgreSQL is away.
        """
        async with self._database.connection() as connection:
            now = await publication(connection)
        for state in ("placed", "published", "playable"):
            FILES.labels(state).set(getattr(now, state))
        FILES_NOT_PLAYABLE.clear()
        for reason, count in now.reasons.items():
            FILES_NOT_PLAYABLE.labels(reason).set(count)
        return 0


def duties(app: App) -> list[Duty]:
    """The duty that counts, wired."""
    figures = Figures(app.database)
    return [PeriodicDuty.of(app, "figures", figures.run_once, interval_s=_EVERY_S)]
