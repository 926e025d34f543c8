"""Tickets take turns for the places of the fetcher-writer."""

from __future__ import annotations

import asyncio

from services.fetcher_writer.turns import Turns


async def started(turns: Turns, order: list[str], *names: str) -> list[asyncio.Task[None]]:
    """A task for each file; its ticket is the first letter of its name."""

    async def work(name: str) -> None:
        async with turns.place(name[0]):
            order.append(name)
            # All that wait are in the queue before the next place is free.
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(work(name)) for name in names]
    await asyncio.sleep(0)
    return tasks


async def test_a_ticket_of_many_files_delays_no_other() -> None:
    """The only file of another ticket comes after one of them, not after all."""
    turns, order = Turns(1), list[str]()
    tasks = await started(turns, order, "a1", "a2", "a3", "a4", "b1", "c1")
    await asyncio.gather(*tasks)
    assert order == ["a1", "a2", "b1", "c1", "a3", "a4"]


async def test_only_so_many_at_once() -> None:
    """The count bounds all tickets together."""
    turns, at_once, most = Turns(2), 0, 0

    async def work(name: str) -> None:
        nonlocal at_once, most
        async with turns.place(name):
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            at_once -= 1

    await asyncio.gather(*(work(f"{number % 3}") for number in range(20)))
    assert (most, at_once) == (2, 0)


async def test_a_cancelled_file_keeps_no_place() -> None:
    """Neither while it waits, nor at the moment at which its turn comes."""
    turns, order = Turns(1), list[str]()
    async with turns.place("x"):
        waiting, chosen, last = await started(turns, order, "a1", "b1", "c1")
        waiting.cancel()
        await asyncio.sleep(0)
    # The place was passed to b1, which has not run since.
    chosen.cancel()
    await asyncio.gather(waiting, chosen, last, return_exceptions=True)
    assert order == ["c1"]
    async with asyncio.timeout(1), turns.place("d"):
        pass
