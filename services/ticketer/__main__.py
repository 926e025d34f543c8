"""`python -m services.ticketer`."""

from services.ticketer.acquisition import Acquisition
from services.ticketer.adder import Adder
from services.ticketer.direct import DirectTicketer
from services.ticketer.direct_store import DirectStore
from services.ticketer.release_choice import Chooser
from services.ticketer.release_search import Searching
from services.ticketer.service import Ticketer
from services.ticketer.store import Store
from shared.app import App
from shared.choosing.model import Profile
from shared.db.releases import Budget
from shared.duty import Duty
from shared.leases import LeaseKeeper
from shared.process import main
from shared.settings import Settings
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.wiring import torrentino_client

_HOUR_S = 3600.0


def build(app: App) -> list[Duty]:
    """The ticketer's duties, wired: one for each way, which take what is new by turns."""
    client = torrentino_client(app.settings)
    app.closers.append(client.close)
    acquisition = Acquisition(app, client)
    leases = LeaseKeeper(app.database, lease_s=app.settings.lease_s)
    by_ticket = _by_ticket(app, client, acquisition, leases)
    direct = _direct(app, client, acquisition, leases)
    app.bus.listen("ticket", by_ticket.loop.wake, queue="ticketer")
    app.bus.listen("ticket", direct.loop.wake, queue="ticketer")
    return [by_ticket, direct, leases]


def _by_ticket(
    app: App, client: TorrentinoClient, acquisition: Acquisition, leases: LeaseKeeper
) -> Ticketer:
    settings = app.settings
    return Ticketer(
        database=app.database,
        store=Store(
            app.database,
            dest_root=settings.torrentino_dest_root,
            grouping=settings.ticket_grouping,
            max_in_flight=settings.max_tickets_in_flight,
            lease_s=settings.lease_s,
            worker=app.worker,
            way=acquisition.way,
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


def _direct(
    app: App, client: TorrentinoClient, acquisition: Acquisition, leases: LeaseKeeper
) -> DirectTicketer:
    settings = app.settings
    store = DirectStore(
        app.database,
        max_downloads=settings.max_downloads,
        budget=Budget(per_hour=settings.searches_per_hour, gap_s=settings.search_gap_s),
        ttl_s=settings.releases_ttl_h * _HOUR_S,
        lease_s=settings.lease_s,
        worker=app.worker,
    )
    searching = Searching(store, client, app.health)
    return DirectTicketer(
        store=store,
        client=client,
        acquisition=acquisition,
        searching=searching,
        chooser=Chooser(searching, _profile(settings)),
        adder=Adder(store, client, downloads_root=settings.torrentino_downloads_root or "/"),
        leases=leases,
        bus=app.bus,
        relay_wake=app.relay.wake,
        health=app.health,
        retries=app.retries,
        rng=app.rng,
        sweep_interval_s=settings.sweep_interval_s,
    )


def _profile(settings: Settings) -> Profile:
    return Profile(
        prefer_lossless=settings.prefer_lossless,
        min_bitrate_kbps=settings.min_bitrate_kbps,
        max_grab_bytes=int(settings.max_grab_gb * 1e9),
    )


if __name__ == "__main__":
    main({"ticketer": build})
