"""What holds for every mode of acquisition, at the stand-in, with each torrent client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from shared.acquisition.protocol import Begun, Phase
from shared.errors import AttemptFailed, OutcomeUnknown, Unavailable
from tests.contract.acquisition_labs import Lab, lab
from tests.support.standin_helpers import eventually

LABS = (
    "direct librqbit",
    "direct qbittorrent",
    "direct librqbit private",
    "direct qbittorrent private",
    "tickets librqbit",
    "tickets qbittorrent",
    "tickets qbittorrent seen",
)


@pytest.fixture(params=LABS)
async def it(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lab]:
    """A mode, and a download that it can bring."""
    async with lab(tmp_path, request.param) as made:
        yield made


def stuck(it: Lab) -> None:
    """The download stops half-way, and does not end meanwhile."""
    it.standin.faults.fates["low tide"] = "stuck_downloading"


async def downloading(it: Lab) -> Begun:
    """It is started, and its torrent is at the client."""
    begun = await it.start()
    return await eventually(lambda: it.downloading(begun))


async def whole(it: Lab, begun: Begun) -> set[Phase]:
    """Follow it until it is whole; the phases that it went through."""
    phases: set[Phase] = set()

    async def is_whole() -> bool:
        phases.add((await it.look(begun)).phase)
        return Phase.WHOLE in phases

    await eventually(is_whole)
    return phases


async def test_what_was_never_started_is_not_found(it: Lab) -> None:
    """Also while other downloads are there."""
    await it.stranger()
    assert await it.mode.find([it.intent]) == {}


async def test_started_once_and_found_after_a_lost_answer(it: Lab) -> None:
    """The request has its effect, the answer is lost: it may have been started, and is found."""
    it.standin.faults.drop_after, it.standin.faults.only = 1, it.starts
    with pytest.raises(OutcomeUnknown):
        await it.mode.start(it.order)
    found = await eventually(lambda: it.mode.find([it.intent]))
    assert {found["ours"].remote_id} == await it.at_remote()
    assert found["ours"].extra == ()
    assert it.standin.requests[it.starts] == 1


async def test_what_was_started_has_one_id(it: Lab) -> None:
    """`start` answers with the id by which `find` finds it."""
    stuck(it)
    started = await it.mode.start(it.order)
    assert not started.was_there
    found = await it.mode.find([it.known(started)])
    assert found["ours"].remote_id == started.remote_id
    assert await it.at_remote() == {started.remote_id}


async def test_an_order_that_is_refused_starts_nothing(it: Lab) -> None:
    """The attempt is over, and there is nothing to be found."""
    it.refuse()
    with pytest.raises(AttemptFailed):
        await it.mode.start(it.order)
    assert await it.at_remote() == set()
    assert await it.mode.find([it.intent]) == {}


async def test_followed_to_whole(it: Lab) -> None:
    """At work, and then whole; never anything else."""
    begun = await it.start()
    assert await whole(it, begun) <= {Phase.WORKING, Phase.WHOLE}


async def test_each_of_several_is_in_the_answer(it: Lab) -> None:
    """One call follows all; what the remote does not have is gone."""
    begun = await it.start()
    gone = Begun(id="gone", remote_id="0" * 40, folder=f"{it.intent.folder}x")
    seen = await it.mode.follow([begun, gone])
    assert seen["ours"].remote is not None
    assert (seen["gone"].phase, seen["gone"].remote) == (Phase.GONE, None)


async def test_where_the_files_lie(it: Lab) -> None:
    """Nowhere before it is whole; then at a path that holds just its bytes."""
    stuck(it)
    begun = await downloading(it)
    assert await it.mode.locate(begun, await it.look(begun)) is None
    it.standin.faults.fates.clear()
    await whole(it, begun)
    at = await it.mode.locate(begun, await it.look(begun))
    assert at is not None
    path = Path(at.path)
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    assert [each.read_bytes() for each in files] == it.content
    if at.in_torrent:
        assert path.is_relative_to(it.downloads)
        assert at.size_bytes == sum(map(len, it.content))
    else:
        assert at.path == it.intent.folder


async def test_what_is_gone(it: Lab) -> None:
    """The remote has forgotten it: that is no failure, and it lies nowhere."""
    stuck(it)
    begun = await it.start()
    await it.lose(begun)
    seen = await it.look(begun)
    assert seen.phase is Phase.GONE
    assert await it.mode.locate(begun, seen) is None
    assert await it.mode.give_up([begun], reason="a test", with_data=True) == {"ours"}


async def test_what_failed(it: Lab) -> None:
    """The remote has ended it without its files."""
    stuck(it)
    begun = await it.start()
    it.fail(begun)
    seen = await it.look(begun)
    assert seen.phase is Phase.FAILED
    assert await it.mode.locate(begun, seen) is None


async def test_an_outage_changes_nothing(it: Lab) -> None:
    """Each call raises Unavailable; what was there before is there after it, and nothing else."""
    stuck(it)
    begun = await it.start()
    before = await it.at_remote()
    calls: list[Callable[[], Awaitable[object]]] = [
        it.mode.ready,
        lambda: it.mode.find([it.intent]),
        lambda: it.mode.start(it.order),
        lambda: it.mode.follow([begun]),
        lambda: it.mode.give_up([begun], reason="a test", with_data=True),
    ]
    it.standin.faults.down = True
    for call in calls:
        with pytest.raises(Unavailable):
            await call()
    it.standin.faults.down = False
    await it.mode.ready()
    assert await it.at_remote() == before
    assert (await it.look(begun)).phase is Phase.WORKING


async def test_an_outage_of_the_torrent_client_keeps_the_data(it: Lab) -> None:
    """What would be ended without its data is not ended."""
    stuck(it)
    begun = await downloading(it)
    before = await it.at_remote()
    it.standin.faults.client_away = True
    with pytest.raises(Unavailable):
        await it.mode.ready()
    with pytest.raises(Unavailable):
        await it.mode.give_up([begun], reason="a test", with_data=True)
    it.standin.faults.client_away = False
    assert await it.at_remote() == before


async def test_giving_up_may_be_repeated(it: Lab) -> None:
    """It ends, with what was downloaded; and what others have there is left alone."""
    stuck(it)
    stranger = await it.stranger()
    begun = await downloading(it)

    async def has_ended() -> bool:
        ended = await it.mode.give_up([begun], reason="a test", with_data=True)
        return "ours" in ended

    await eventually(has_ended)
    assert await has_ended()
    assert await it.at_remote() == {stranger}
    assert begun.info_hash not in await it.torrents()


async def test_data_that_is_kept(it: Lab) -> None:
    """Without `with_data` what is downloaded stays on disk."""
    begun = await it.start()
    await whole(it, begun)
    at = await it.mode.locate(begun, await it.look(begun))
    assert at is not None
    assert await it.mode.give_up([begun], reason="a test", with_data=False) == {"ours"}
    assert Path(at.path).exists()


async def test_a_torrent_that_another_ticket_follows_stays(it: Lab) -> None:
    """That ticket would take its next candidate, which may be another song."""
    stuck(it)
    begun = await downloading(it)
    assert begun.info_hash is not None
    await it.followed_by_another(begun.info_hash)
    await it.mode.give_up([begun], reason="a test", with_data=True)
    assert begun.info_hash in await it.torrents()
