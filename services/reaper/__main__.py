"""`python -m services.reaper`."""

from services.reaper.clock_watch import ClockWatch
from services.reaper.service import Reaper, RefusedBounds
from services.reaper.store import Store
from shared.app import App
from shared.db.media_root import MediaRoot
from shared.duty import Duty, PeriodicDuty
from shared.process import main
from shared.readiness import first_checks

_DAY_S = 86_400
SWEEP_EVERY_S = 60.0
_PRUNE_EVERY_S = 3600.0


def build(app: App) -> list[Duty]:
    """The reaper's duties, wired. It does not publish the outbox: every process has a relay."""
    settings = app.settings
    root = MediaRoot(app.database, settings.media_root)
    reaper = Reaper(
        store=Store(app.database),
        root=root,
        announcer=app.announcer,
        retention_s=settings.history_retention_days * _DAY_S,
        clock_watch=ClockWatch(app.clock, lease_s=settings.lease_s),
        lease_s=settings.lease_s,
        refused=RefusedBounds(
            keep_s=settings.refused_keep_days * _DAY_S, keep_bytes=settings.refused_keep_bytes
        ),
    )
    beats = (
        ("leases", reaper.recover_leases, min(settings.sweep_interval_s, settings.lease_s / 2)),
        ("sweep", reaper.sweep, SWEEP_EVERY_S),
        ("prune", reaper.prune, _PRUNE_EVERY_S),
    )
    duties: list[Duty] = [
        PeriodicDuty.of(app, f"reaper {name}", run_once, interval_s=interval_s)
        for name, run_once, interval_s in beats
    ]
    return [*duties, *first_checks(app, {"media": root.look})]


if __name__ == "__main__":
    main({"reaper": build})
