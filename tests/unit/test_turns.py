"""Places go round robin over tickets, and no ticket has them all."""

from __future__ import annotations

import asyncio

import pytest

from services.fetcher_writer.turns import Turns


class Work:
    """Files of tickets, each in work until the test lets it end."""

    def __init__(self, places: int) -> None:
        self.turns = Turns(places)
        self.began: list[str] = []
        self._ends: dict[str, list[asyncio.Event]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def wants(self, ticket: str, files: int) -> None:
        """So many files of the ticket wait for a place."""
        self._tasks += [asyncio.create_task(self._file(ticket)) for _ in range(files)]

    async def _file(self, ticket: str) -> None:
        async with self.turns.turn(ticket):
            self.began.append(ticket)
            end = asyncio.Event()
            self._ends.setdefault(ticket, []).append(end)
            await end.wait()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def one_ends(self, ticket: str) -> None:
        self._ends[ticket].pop(0).set()
        await self.settle()

    async def cancel(self, number: int) -> None:
        self._tasks[number].cancel()
        await self.settle()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.mark.parametrize("places", [2, 4])
async def test_a_large_ticket_leaves_a_place(places: int) -> None:
    """F19: a ticket of 24 files is in work; the next ticket begins at once."""
    work = Work(places)
    work.wants("large", 24)
    await work.settle()
    assert work.began == ["large"] * (places - 1)
    work.wants("small", 1)
    await work.settle()
    assert work.began[-1] == "small"
    await work.close()


async def test_one_place_goes_from_ticket_to_ticket() -> None:
    work = Work(1)
    work.wants("a", 3)
    work.wants("b", 2)
    work.wants("c", 1)
    await work.settle()
    for ticket in ("a", "b", "c", "a", "b"):
        await work.one_ends(ticket)
    assert work.began == ["a", "b", "c", "a", "b", "a"]
    await work.close()


async def test_places_are_shared_evenly() -> None:
    work = Work(4)
    work.wants("a", 10)
    work.wants("b", 10)
    await work.settle()
    await work.one_ends("a")
    assert sorted(work.began) == ["a", "a", "a", "b", "b"]
    await work.close()


async def test_what_is_cancelled_while_it_waits_takes_no_place() -> None:
    work = Work(1)
    work.wants("a", 1)
    work.wants("b", 1)
    work.wants("c", 1)
    await work.settle()
    await work.cancel(1)
    await work.one_ends("a")
    assert work.began == ["a", "c"]
    await work.cancel(2)
    work.wants("d", 1)
    await work.settle()
    assert work.began == ["a", "c", "d"]
    await work.close()
