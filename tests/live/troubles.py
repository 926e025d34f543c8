"""What goes wrong in a trial while the product works."""

from __future__ import annotations

import asyncio
import random

from tests.live.lab import Lab

_KILLING_S = 30.0
_AWAY_S = 30.0
_INDEXER_AWAY_S = 40.0


async def torrentino_restarted(lab: Lab) -> None:
    """Restart Torrentino in order, twice, while it downloads."""
    for _ in range(2):
        await lab.until_something_downloads()
        await asyncio.sleep(1)
        await lab.torrentino.stop()
        await lab.torrentino.start()
        await asyncio.sleep(3)


async def searches_are_slow(lab: Lab) -> None:
    """Let each search take two seconds."""
    await lab.slow_down_searches(2.0)


async def torrentino_killed_while_it_searches(lab: Lab) -> None:
    """Kill Torrentino in the middle of a search; it is back after ten seconds."""
    await lab.until_it_searches()
    await lab.torrentino.kill()
    await asyncio.sleep(10)
    await lab.slow_down_searches(0)
    await lab.torrentino.start()


async def services_killed(lab: Lab) -> None:
    """Kill our services at random moments for half a minute; they are started again at once."""
    moments = random.Random(lab.seed)
    loop = asyncio.get_running_loop()
    ends = loop.time() + _KILLING_S
    services = lab.product.program
    while loop.time() < ends:
        await asyncio.sleep(moments.uniform(0.2, 3.0))
        await services.kill()
        await services.start()


async def client_away(lab: Lab) -> None:
    """Kill the torrent client while it downloads, and start it again after half a minute."""
    await lab.until_something_downloads()
    assert lab.torrent_client is not None
    await lab.torrent_client.kill()
    await asyncio.sleep(_AWAY_S)
    await lab.torrent_client.start()


async def indexer_fails(lab: Lab) -> None:
    """Let the indexer answer each search with an error."""
    await lab.indexer_answers(500)


async def indexer_away(lab: Lab) -> None:
    """The indexer recovers after a while."""
    await asyncio.sleep(_INDEXER_AWAY_S)
    await lab.indexer_answers(200)
