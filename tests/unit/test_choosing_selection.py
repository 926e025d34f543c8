"""What is tried of what indexers list, when some of it was tried before."""

from __future__ import annotations

from shared.choosing.model import Profile, Release, Wanted
from shared.choosing.selection import Blocked, key_of, select

WANTED = Wanted(
    artist="Kestrel Union", album="Paper Lighthouse", year=2004, tracks=10, seconds=2400
)
MB = 1_000_000


def release(title: str, size_mb: int = 250, **more: object) -> Release:
    return Release(title=title, size_bytes=size_mb * MB, seeders=9, **more)  # type: ignore[arg-type]


FLAC = release("Kestrel Union - Paper Lighthouse (2004) [FLAC]", info_hash="a" * 40)
MP3 = release("Kestrel Union - Paper Lighthouse (2004) [MP3 320]", 96, info_hash="b" * 40)
LIVE = release("Kestrel Union - Paper Lighthouse (Live) (2005) [FLAC]")
OLD = release("Kestrel Union - Paper Lighthouse (1987) [FLAC]")
HUGE = release("Kestrel Union - Paper Lighthouse (2004) [FLAC 24-192]", 9_000)
DEAD = Release(title=FLAC.title, size_bytes=FLAC.size_bytes, seeders=0)


def titles(
    *, blocked: list[Blocked] | None = None, stalled: list[Blocked] | None = None
) -> tuple[list[str], list[str]]:
    chosen = select(
        WANTED,
        [LIVE, MP3, FLAC, OLD, HUGE],
        Profile(),
        blocked=blocked or [],
        stalled=stalled or [],
    )
    return [e.release.title for e in chosen.tried], [e.release.title for e in chosen.last]


def test_soft_refusals_are_the_last_resort_and_what_is_too_large_is_none() -> None:
    """Of 1987: another issue perhaps. A person takes nine gigabytes."""
    assert titles() == ([FLAC.title, MP3.title], [OLD.title])


def test_what_nobody_has_is_not_waited_for() -> None:
    chosen = select(WANTED, [DEAD], Profile(), blocked=[], stalled=[])
    assert (chosen.tried, chosen.last) == ((), ())
    assert chosen.refused == ((DEAD.title, "it has no seeders"),)


def test_what_is_refused_has_its_sentence() -> None:
    chosen = select(WANTED, [LIVE, FLAC], Profile(), blocked=[], stalled=[])
    assert chosen.refused == ((LIVE.title, "it is another recording: live"),)


def test_a_release_is_out_when_it_is_blocked_for_every_track() -> None:
    """For one of two it may still bring the other."""
    is_out = Blocked(info_hashes=frozenset({"a" * 40}))
    assert titles(blocked=[is_out, Blocked()])[0] == [FLAC.title, MP3.title]
    assert titles(blocked=[is_out, is_out])[0] == [MP3.title]


def test_the_same_release_from_elsewhere_is_blocked_by_title_and_size() -> None:
    """Another hash, another way to write it, a size that is rounded otherwise."""
    again = Release(
        title="kestrel union  paper lighthouse [2004] FLAC",
        size_bytes=FLAC.size_bytes + 900_000,
        seeders=3,
        info_hash="c" * 40,
    )
    blocked = Blocked(keys=frozenset({key_of(FLAC)}))
    assert blocked.has(again)
    assert not blocked.has(MP3)


def test_what_did_not_come_is_tried_when_nothing_else_is_left() -> None:
    stalled = Blocked(info_hashes=frozenset({"a" * 40}))
    assert titles(stalled=[stalled]) == ([MP3.title], [OLD.title, FLAC.title])


def test_the_places_are_those_of_the_list_that_was_given() -> None:
    """Links go by them."""
    blocked = Blocked(keys=frozenset({key_of(MP3)}))
    chosen = select(WANTED, [MP3, LIVE, FLAC], Profile(), blocked=[blocked], stalled=[])
    assert [each.place for each in chosen.tried] == [2]
