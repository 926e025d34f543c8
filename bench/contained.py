"""How long good tickets take beside bad ones: the fetcher-writer's loop.

60 tickets are ready, the oldest of them bad. What cannot be read is refused at the call, because
root reads everything.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
import time
from collections.abc import Callable

from tests.support.autoindex import Autoindex, answer
from tests.support.disk import withheld
from tests.support.ready import Ready, arrived, ready
from tests.support.stages import stages
from tests.support.world import World, eventually

Figures = dict[str, float | int | str]

TICKETS = 60
BAD = (0, 1, 5, 20)
_AWAY = """
UPDATE queue_items SET stage = 'failed', completed_at = 1, lease_until = NULL, lease_owner = NULL
 WHERE stage <> 'completed'
"""


async def run(world: World) -> Figures:
    """Seconds until the good ones have arrived, for each fault and each number of bad ones."""
    found: Figures = {}
    first = 1
    for name, fault in FAULTS.items():
        for bad in BAD:
            seconds, retried = await _trial(world, name, fault, bad=bad, first=first)
            base = found.setdefault(f"{name}: without bad ones, s", round(seconds, 1))
            if bad:
                ratio = seconds / (TICKETS - bad) / (float(base) / TICKETS)
                found[f"{name}: {TICKETS - bad} beside {bad} bad, s"] = round(seconds, 1)
                found[f"{name}: … a good one beside {bad}, times that without"] = round(ratio, 2)
                found[f"{name}: … attempts of the {bad} bad"] = retried
            first += TICKETS
    return found


async def _trial(
    world: World,
    name: str,
    fault: Callable[[Autoindex, Ready], None],
    *,
    bad: int,
    first: int,
) -> tuple[float, int]:
    items = await ready(world, TICKETS, first=first)
    refused, good = items[:bad], items[bad:]
    async with Autoindex(world.incoming) as server:
        for each in refused:
            fault(server, each)
        over_http = {"TORRENTINO_DELIVERY": "http", "TORRENTINO_FILES_URL": server.url}
        named = over_http if name.startswith("http") else {}
        withholding = refused if name == "unreadable folder" else []
        paths = dict.fromkeys([each.folder / "CD1" for each in withholding], errno.EACCES)
        async with stages(world, **named) as by_hand:
            with withheld(paths):
                stop = asyncio.Event()
                began = time.monotonic()
                running = asyncio.create_task(by_hand.fetcher.run(stop))

                async def count() -> int:
                    return await arrived(world, good)

                await eventually(count, lambda there: there == len(good), within_s=600)
                seconds = time.monotonic() - began
                stop.set()
                await running
    retried = sum([(await each.item(world))["retry_count"] for each in refused])
    await world.execute(_AWAY)
    for each in items:
        shutil.rmtree(each.folder, ignore_errors=True)
    return seconds, retried


def _unreadable(_: Autoindex, item: Ready) -> None:
    disc = item.folder / "CD1"
    disc.mkdir()
    item.file.rename(disc / item.file.name)


def _lost(_: Autoindex, item: Ready) -> None:
    shutil.rmtree(item.folder)


def _answering(status: int) -> Callable[[Autoindex, Ready], None]:
    def fault(server: Autoindex, item: Ready) -> None:
        server.refusals[f"/files/{item.folder.name}/{item.file.name}"] = answer(status, b"", [])

    return fault


FAULTS: dict[str, Callable[[Autoindex, Ready], None]] = {
    "unreadable folder": _unreadable,
    "lost folder": _lost,
    "http 403": _answering(403),
    "http 404": _answering(404),
    "http 503": _answering(503),
}
