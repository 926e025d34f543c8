"""`python -m services.poller`."""

from services.poller.delivery_plan import Gatherer
from services.poller.download_cleanup import Leftovers
from services.poller.downloads import Follower
from services.poller.downloads_store import TorrentsStore
from services.poller.fallback import OtherKind
from services.poller.hints import Hints
from services.poller.remote_tickets import Reader
from services.poller.service import Poller
from services.poller.store import Store
from services.poller.ticket_cancellation import Withdrawals
from services.poller.ticket_cleanup import Tidier
from services.poller.torrent_removal import Sources
from shared.app import App
from shared.duty import Duty, PeriodicDuty
from shared.errors import Dependency
from shared.process import main
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.wiring import torrentino_client

# Strays are rare, and a look for them reads every live ticket.
_STRAYS_EVERY = 12


def build(app: App) -> list[Duty]:
    """The poller's duties, wired."""
    settings = app.settings
    client = torrentino_client(settings)
    app.closers.append(client.close)
    store = Store(app.database, poll_interval_s=settings.poll_interval_s)
    reader = Reader(client, dest_root=settings.torrentino_dest_root)
    sources = Sources(app.database, client)
    withdrawals = Withdrawals(
        store=store,
        client=client,
        reader=reader,
        sources=sources,
        health=app.health,
        poll_interval_s=settings.poll_interval_s,
    )
    poller = Poller(
        store=store,
        client=client,
        reader=reader,
        sources=sources,
        withdrawals=withdrawals,
        gatherer=Gatherer(
            client,
            store,
            downloads_root=settings.torrentino_downloads_root,
            poll_interval_s=settings.poll_interval_s,
        ),
        bus=app.bus,
        relay_wake=app.relay.wake,
        health=app.health,
        retries=app.retries,
        rng=app.rng,
        other_kind=OtherKind(client, store, grouping=settings.ticket_grouping),
        poll_interval_s=settings.poll_interval_s,
        stall_timeout_s=settings.stall_timeout_s,
    )
    tidier = Tidier(
        app.database,
        client,
        sources,
        policy=settings.torrentino_cleanup,
        keep_days=settings.ticket_keep_days,
    )
    # A beat finer than the interval, so that no ticket waits for nearly two of them.
    beat_s = min(settings.poll_interval_s / 2, settings.sweep_interval_s)
    polling = PeriodicDuty.of(
        app, "poller", poller.run_once, interval_s=beat_s, needs=["torrentino"]
    )
    strays_s = _STRAYS_EVERY * settings.sweep_interval_s
    strays = PeriodicDuty.of(
        app, "strays", withdrawals.cancel_strays, interval_s=strays_s, needs=["torrentino"]
    )
    tidying_s = settings.sweep_interval_s
    tidying = PeriodicDuty.of(
        app, "tidying", tidier.run_once, interval_s=tidying_s, needs=["torrentino"]
    )
    app.bus.listen("poll", polling.wake, queue="poller")
    hints = Hints(settings=settings, store=store, wake=polling.wake, health=app.health)
    return [polling, strays, tidying, hints, *_direct(app, client, beat_s=beat_s)]


def _direct(app: App, client: TorrentinoClient, *, beat_s: float) -> list[Duty]:
    """What follows our own downloads."""
    settings = app.settings
    store = TorrentsStore(app.database, poll_interval_s=settings.poll_interval_s)
    follower = Follower(
        store=store,
        client=client,
        bus=app.bus,
        relay_wake=app.relay.wake,
        health=app.health,
        retries=app.retries,
        rng=app.rng,
        max_grabs=settings.max_grabs,
        poll_interval_s=settings.poll_interval_s,
        stall_timeout_s=settings.stall_timeout_s,
    )
    leftovers = Leftovers(store, client, policy=settings.download_cleanup)
    needs: list[Dependency] = ["torrentino", "torrent_client"]
    following = PeriodicDuty.of(app, "torrents", follower.run_once, interval_s=beat_s, needs=needs)
    removing = PeriodicDuty.of(app, "leftovers", leftovers.run_once, needs=needs)
    app.bus.listen("poll", following.wake, queue="poller")
    return [following, removing]


if __name__ == "__main__":
    main({"poller": build})
