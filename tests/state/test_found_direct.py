"""Lives of our own downloads that a search, or thinking, has found to matter, step by step."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.local.torrentino import TorrentSpec
from services.ticketer.direct_store import DirectStore
from shared.bus.subjects import REQUEST_ALBUM, REQUEST_CANCEL
from shared.choosing.model import Release
from shared.choosing.selection import key_of
from tests.state.direct import DirectMachine, Listing
from tests.state.model import Row
from tests.state.setting import ALBUMS, TRACKS

ALBUM = sorted(ALBUMS)[0]

Step = Callable[[DirectMachine], None]


def live(machine: type[DirectMachine], *steps: Step, which: Listing = ("good",)) -> None:
    """Ask for an album of which this is listed, go through the steps, and to the end of all."""
    run = machine()
    run.begin()
    try:
        run.indexers_list(album=ALBUM, which=which)
        for step in steps:
            step(run)
            run.holds()
    except BaseException:
        run.runner.run(run.setting.end())
        raise
    run.teardown()


def asked(run: DirectMachine) -> None:
    body = {"v": 1, "request_id": "a0", "user_id": "ann", "priority": 2, "album_id": ALBUM}
    run.send(0, REQUEST_ALBUM, body)


def withdrawn(run: DirectMachine) -> None:
    run.send(1, REQUEST_CANCEL, {"v": 1, "request_id": "a0", "user_id": "ann"})


def held(point: str) -> Step:
    return lambda run: run.direct_worker_is_held(copy=0, what=("direct", point))


def goes_on(run: DirectMachine) -> None:
    run.held_worker_goes_on(copy=0)


def works(*workers: str, copy: int = 0) -> Step:
    def step(run: DirectMachine) -> None:
        for worker in workers:
            run.step(copy, worker)

    return step


def later(seconds: int) -> Step:
    return lambda run: run.much_time_passes(jump_s=seconds)


def adds(run: DirectMachine) -> int:
    requests = run.setting.world.standin.requests
    return sum(n for call, n in requests.items() if call.startswith("POST /torrents/add"))


def items(run: DirectMachine) -> list[Row]:
    return run.do(
        run.setting.rows(
            "SELECT q.stage, q.retry_count, t.torrent_title FROM queue_items q"
            " LEFT JOIN tickets t ON t.id = q.ticket_id ORDER BY q.track_id"
        )
    )


def test_what_an_indexer_was_missing_in_is_asked_again(
    direct_machine: type[DirectMachine],
) -> None:
    """An answer that is remembered for a day is none for who waits an hour for that indexer."""

    def indexer_fails(run: DirectMachine) -> None:
        song = run.setting.songs[TRACKS[0]]
        other = TorrentSpec.of("Nobody - Nothing", {"a.flac": song}, indexers=("lab",))
        run.releases["other", "good"] = other
        run.setting.torrents.append(other)
        run.setting.world.faults.indexer_errors = {"openbay": "429 Too Many Requests"}
        run.spoilt.add(ALBUM)

    def indexer_is_back(run: DirectMachine) -> None:
        assert {item["stage"] for item in items(run)} == {"retry_wait"}
        run.setting.world.faults.indexer_errors = {}

    def found(run: DirectMachine) -> None:
        assert {item["stage"] for item in items(run)} == {"searching"}

    steps = (indexer_fails, asked, works("direct"), indexer_is_back, later(4000), works("direct"))
    live(direct_machine, *steps, found)


@pytest.mark.parametrize("kind", ["good", "private"])
def test_what_a_stranger_has_added_is_never_ours(
    direct_machine: type[DirectMachine], kind: str
) -> None:
    """Also where the release tells no hash, so that it only shows when it was added."""

    def stranger_adds(run: DirectMachine) -> None:
        run.stranger_adds_a_torrent(album=ALBUM, kind=kind)
        assert run.strangers

    live(direct_machine, stranger_adds, asked, works("direct", "torrents"), which=(kind,))


@pytest.mark.parametrize("kind", ["good", "private"])
def test_a_torrent_that_is_added_too_late_goes(
    direct_machine: type[DirectMachine], kind: str
) -> None:
    """Its download was withdrawn, and nothing was found, long before it is there."""
    live(
        direct_machine,
        asked,
        held("before adding"),
        withdrawn,
        later(4000),
        works("torrents", "leftovers", copy=1),
        goes_on,
        which=(kind,),
    )


def test_who_takes_another_release_does_not_wait_for_the_others(
    direct_machine: type[DirectMachine],
) -> None:
    """One track is known not to come from the best release: both downloads begin at once."""

    def blocked(run: DirectMachine) -> None:
        spec = run.releases[ALBUM, "private"]
        size_bytes = sum(file.source.stat().st_size for file in spec.files)
        key = key_of(Release(title=spec.title, size_bytes=size_bytes, seeders=1))
        insert = (
            "INSERT INTO blocklist (track_id, release_key, why, reason, item_id)"
            " VALUES ($1, $2, 'lacks', 'a test', 'none')"
        )
        run.do(run.setting.sql.execute(insert, TRACKS[1], key))

    def both_under_way(run: DirectMachine) -> None:
        titles = [item["torrent_title"] for item in items(run)]
        assert titles == [run.releases[ALBUM, kind].title for kind in ("private", "good")]
        assert {item["stage"] for item in items(run)} == {"searching"}

    steps = (blocked, asked, works("direct", "direct"), both_under_way)
    live(direct_machine, *steps, which=("private", "good"))


def test_a_link_is_not_asked_for_all_the_time_while_the_indexers_are_away(
    direct_machine: type[DirectMachine],
) -> None:
    """What the search knows of their outage, a link that is to be added knows as well."""

    def goes_away(run: DirectMachine) -> None:
        run.setting.world.faults.searcher_away = True

    def asked_once(run: DirectMachine) -> None:
        before = adds(run)
        goes_on(run)
        works("direct", "direct", "direct", "direct")(run)
        assert adds(run) - before == 1

    steps = (asked, held("before adding"), goes_away, asked_once)
    live(direct_machine, *steps, which=("private",))


@pytest.mark.parametrize("kind", ["good", "private"])
def test_a_late_adder_is_found_by_another(direct_machine: type[DirectMachine], kind: str) -> None:
    """Another copy has added and recorded the release meanwhile: there is one download."""

    def late(run: DirectMachine) -> None:
        run.direct_worker_is_late(copy=0, what=("direct", "before adding"), jump_s=300)

    def one(run: DirectMachine) -> None:
        assert len(run.do(run.setting.rows("SELECT 1 FROM tickets"))) == 1

    live(direct_machine, asked, late, goes_on, one, which=(kind,))


def test_a_missing_guard_is_noticed(
    direct_machine: type[DirectMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same life fails without what makes it right: the tests above can fail."""

    async def forget(*_: object) -> None:
        """No row tells of what came late."""

    monkeypatch.setattr(DirectStore, "came_late", forget)
    with pytest.raises(AssertionError, match="I11"):
        test_a_torrent_that_is_added_too_late_goes(direct_machine, "private")
