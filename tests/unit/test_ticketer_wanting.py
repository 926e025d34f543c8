"""What items want together, and what indexers are asked for it."""

from __future__ import annotations

from services.ticketer.wanted import Item, want_of
from shared.db.albums import KnownAlbum
from shared.db.claims import Claim
from shared.tracks import CatalogTrack, WantedTrack


def item(number: int, *, album_id: str | None = "A1", duration_ms: int | None = 200_000) -> Item:
    return Item(
        claim=Claim(item_id=f"i{number}", fence=1),
        wanted=WantedTrack(
            item_id=f"i{number}",
            track=CatalogTrack(
                id=f"t{number}",
                title=f"Song {number}",
                artist="Kestrel Union",
                duration_ms=duration_ms,
            ),
            album_id=album_id,
            album="Paper Lighthouse" if album_id else "",
            album_artist="Kestrel Union",
        ),
    )


def album(count: int, *, lengths: list[int | None] | None = None) -> KnownAlbum:
    of = lengths or [200_000] * count
    return KnownAlbum(
        name="Paper Lighthouse",
        artist="Kestrel Union",
        tracks=tuple(
            CatalogTrack(
                id=f"t{n}", title=f"Song {n}", artist=None, disc=1, number=n, duration_ms=of[n - 1]
            )
            for n in range(1, count + 1)
        ),
        year=2004,
        kind="album",
    )


def test_an_album_is_measured_by_its_whole_tracklist() -> None:
    want = want_of([item(1), item(2)], album(10))
    assert want.album is not None
    assert (want.album.tracks, want.album.seconds, want.album.year) == (10, 2000.0, 2004)
    assert want.track is None
    assert want.queries == ("Kestrel Union Paper Lighthouse", "Kestrel Union")
    assert want.artist_wide == {"Kestrel Union"}


def test_lengths_that_are_not_known_are_those_of_the_others() -> None:
    want = want_of([item(1)], album(4, lengths=[100_000, None, 300_000, None]))
    assert want.album is not None
    assert want.album.seconds == 800.0


def test_a_lone_track_is_asked_for_by_its_album_and_then_by_itself() -> None:
    want = want_of([item(3)], album(10))
    assert want.queries == (
        "Kestrel Union Paper Lighthouse",
        "Kestrel Union",
        "Kestrel Union Song 3",
    )
    assert want.track is not None
    assert (want.track.album, want.track.seconds, want.track.tracks) == ("Song 3", 200.0, 1)


def test_a_track_without_an_album_has_only_itself() -> None:
    want = want_of([item(3, album_id=None)], None)
    assert want.album is None
    assert want.queries == ("Kestrel Union Song 3",)
    assert want.memory == "track t3"


def test_one_memory_serves_an_album_whichever_track_is_wanted() -> None:
    assert want_of([item(1)], album(3)).memory == want_of([item(2), item(3)], album(3)).memory


def test_an_album_that_nobody_knows_the_tracks_of_is_of_a_usual_size() -> None:
    want = want_of([item(1), item(2)], None)
    assert want.album is not None
    assert (want.album.tracks, want.album.seconds) == (10, 0.0)
