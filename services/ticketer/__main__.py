"""`python -m services.ticketer`."""

from services.ticketer.service import Ticketer
from services.ticketer.store import Store
from shared.app import App, Duty
from shared.leases import LeaseKeeper
from shared.runtime import main
from shared.torrentino.wiring import torrentino_client


def build(app: App) -> list[Duty]:
    """The ticketer's duties, wired."""
    settings = app.settings
    client = torrentino_client(settings)
    app.closers.append(client.close)
    leases = LeaseKeeper(app.database, lease_s=settings.lease_s)
    ticketer = Ticketer(
        database=app.database,
        store=Store(
            app.database,
            dest_root=settings.torrentino_dest_root,
            grouping=settings.ticket_grouping,
            max_in_flight=settings.max_tickets_in_flight,
            lease_s=settings.lease_s,
            worker=app.worker,
        ),
        client=client,
        leases=leases,
        bus=app.bus,
        relay_wake=app.relay.wake,
        health=app.health,
        retries=app.retries,
        rng=app.rng,
        grouping=settings.ticket_grouping,
        sweep_interval_s=settings.sweep_interval_s,
    )
    app.bus.listen("ticket", ticketer.loop.wake, queue="ticketer")
    return [ticketer, leases]


if __name__ == "__main__":
    main({"ticketer": build})
