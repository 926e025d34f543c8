"""Tracks that their places prove, twins, hidden tracks, and the album of a discography."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from shared.matching.assign import assign
from shared.matching.model import Assignment, Offered
from shared.tracks import CatalogTrack

LENGTHS = [200.0, 231.0, 262.0, 180.0, 301.0]
CATALOG = ["Haruka", "Tabun", "Gunjou", "Yoru", "Kaibutsu"]
TRANSLATED = ["Distant", "Perhaps", "Blue Group", "Night", "Monster"]


def track(number: int, title: str, length_s: float | None, id_: str = "") -> CatalogTrack:
    return CatalogTrack(
        id=id_ or f"t{number}",
        title=title,
        artist="The Artist",
        disc=1,
        number=number,
        duration_ms=None if length_s is None else round(length_s * 1000),
    )


def album(titles: Sequence[str] = CATALOG) -> list[CatalogTrack]:
    return [track(n, title, LENGTHS[n - 1]) for n, title in enumerate(titles, start=1)]


def files(
    titles: Sequence[str], *, folder: str = "R/", added: str = "", off_s: float = 0.6
) -> list[Offered]:
    return [
        Offered(
            name=f"{folder}0{n} {title}{added}.flac",
            size_bytes=1000,
            duration_s=LENGTHS[n - 1] + off_s,
        )
        for n, title in enumerate(titles, start=1)
    ]


def decide(
    tracks: Sequence[CatalogTrack], offered: Sequence[Offered], name: str | None = None
) -> Assignment:
    return assign(tracks, [one.id for one in tracks], offered, tolerance_s=6.0, album=name)


def changed(offered: Sequence[Offered], place: int, **changes: object) -> list[Offered]:
    found = list(offered)
    found[place] = replace(found[place], **changes)  # type: ignore[arg-type]
    return found


# --- titles in another language


def test_titles_in_another_language_are_proven_by_their_places() -> None:
    """Each number and each length agrees, and no two could be exchanged."""
    decided = decide(album(), files(TRANSLATED))
    assert {id_: one.name[2:4] for id_, one in decided.sure.items()} == {
        f"t{n}": f"0{n}" for n in range(1, 6)
    }


@pytest.mark.parametrize(
    "offered",
    [
        # A length that is a little more off: another edition, or another album.
        changed(files(TRANSLATED), 2, duration_s=LENGTHS[2] + 1.4),
        # Only one title differs: the torrent has the catalog's titles, so this is another song.
        changed(files(CATALOG), 2, name="R/03 Something Else.flac"),
        # Too few tracks: lengths may agree by chance.
        files(TRANSLATED)[:2],
        # Without numbers there are no places.
        [replace(one, name=f"R/{one.name[5:]}") for one in files(TRANSLATED)],
        # All of them instrumental: of its tape, with its lengths.
        files(TRANSLATED, added=" (Instrumental)"),
        files(TRANSLATED, folder="R/Karaoke/"),
        # The title of another track of the album, at the place of the third.
        changed(files(TRANSLATED), 2, name="R/03 Tabun.flac"),
    ],
)
def test_places_prove_nothing_where_anything_is_against_them(offered: list[Offered]) -> None:
    """An administrator chooses the third."""
    assert "t3" not in decide(album(), offered).sure


def test_tracks_that_could_be_exchanged_are_left_to_an_administrator() -> None:
    """Two of one length; the other three are proven."""
    tracks = [replace(one, duration_ms=231_500) if one.number == 5 else one for one in album()]
    offered = changed(files(TRANSLATED), 4, duration_s=231.5)
    decided = decide(tracks, offered)
    assert decided.sure.keys() == {"t1", "t3", "t4"}
    assert decided.doubtful.keys() == {"t2", "t5"}


# --- one addition to all names


@pytest.mark.parametrize("added", [" (Live)", " (Live at the Pier, 1999)", " [Demo]"])
def test_one_addition_to_all_names_of_another_performance(added: str) -> None:
    """Nobody plays five songs again in the same five lengths."""
    assert len(decide(album(), files(CATALOG, added=added)).sure) == 5
    assert len(decide(album(), files(CATALOG, folder="R/Live/")).sure) == 5


@pytest.mark.parametrize(
    "offered",
    [
        files(CATALOG, added=" (Live)", off_s=1.4),
        changed(files(CATALOG, added=" (Live)"), 1, duration_s=LENGTHS[1] - 3.0),
        changed(files(CATALOG), 2, name="R/03 Gunjou (Live).flac"),
        files(CATALOG, added=" (Instrumental)"),
        files(CATALOG, added=" (Live Instrumental)"),
        files(CATALOG, added=" (Remix)"),
        files(CATALOG, added=" (Clean)"),
        files(CATALOG, added=" (Somebody's Version)"),
        files(TRANSLATED, added=" (Live)"),
        changed(files(CATALOG, added=" (Live)"), 0, name="R/01 Haruka (Demo).flac"),
    ],
)
def test_an_addition_counts_where_lengths_do_not_disprove_it(offered: list[Offered]) -> None:
    """Not of one track alone, not of the song's own tape, and not with another length."""
    assert "t3" not in decide(album(), offered).sure


# --- one recording twice in the catalog


def test_one_file_serves_a_recording_that_the_catalog_has_twice() -> None:
    """The single and the album, or an album that was taken in twice."""
    twice = [*album(), track(1, "Haruka", 200.4, "again")]
    decided = decide(twice, files(CATALOG))
    assert decided.sure["again"] == decided.sure["t1"]
    assert len(decided.sure) == 6
    assert decide([*album(), track(1, "Haruka", 200.4, "a")], files(CATALOG)[1:]).missing == {
        "t1",
        "a",
    }


@pytest.mark.parametrize(
    "other",
    [
        track(1, "Haruka", 205.0, "again"),
        track(1, "Haruka (Instrumental)", 200.0, "again"),
        track(6, "Haruka", 200.0, "again"),
        track(1, "Haruka", None, "again"),
        replace(track(1, "Haruka", 200.0, "again"), artist="Another Artist"),
        replace(track(1, "Haruka", 200.0, "again"), disc=2),
    ],
)
def test_what_only_has_the_name_is_no_twin(other: CatalogTrack) -> None:
    """Another length, artist or place, or no length: each has its own file, or is in doubt."""
    decided = decide([*album(), other], files(CATALOG))
    assert len({one.name for one in decided.sure.values()}) == len(decided.sure)
    assert len(decided.sure) <= 5


# --- a hidden track


def test_a_hidden_track_is_left_to_an_administrator() -> None:
    """The last file of this album is longer than its track: its doubt says by how much."""
    decided = decide(album(), changed(files(CATALOG), 4, duration_s=LENGTHS[4] + 240.0))
    assert decided.sure.keys() == {"t1", "t2", "t3", "t4"}
    assert "240 s longer" in decided.doubtful["t5"].reason
    assert "hidden track" in decided.doubtful["t5"].reason


@pytest.mark.parametrize(
    "offered",
    [
        changed(files(CATALOG), 4, duration_s=LENGTHS[4] - 60.0),
        changed(files(CATALOG), 4, name="R/05 Other.flac", duration_s=LENGTHS[4] + 240.0),
        [replace(one, duration_s=(one.duration_s or 0) + 52.0) for one in files(CATALOG)],
    ],
)
def test_a_last_file_of_another_recording_is_missing(offered: list[Offered]) -> None:
    """It is shorter, is called otherwise, or all files have other lengths."""
    assert "t5" in decide(album(), offered).missing


# --- a torrent of several albums


def discography(**folders: float) -> list[Offered]:
    """The whole track list in each of these folders, its lengths off by so much."""
    return [
        one
        for folder, off_s in folders.items()
        for one in files(CATALOG, folder=f"The Artist - Discography/{folder}/", off_s=off_s)
    ]


@pytest.mark.parametrize(
    "folder",
    [
        *("1999 - Songs", "Songs (1999) [FLAC]", "The Artist - Songs", "03. Songs", "(1999) Songs"),
        *("Songs (Deluxe Edition)", "[1999] Songs [XYZ-123]", "The Artist - 1999 - Songs (CD 1)"),
    ],
)
def test_a_discography_gives_the_album_that_was_asked_for(folder: str) -> None:
    """Not the compilation, the live album or the second volume, though it fits better."""
    others = [
        "Songs II",
        "Best Songs",
        "Songs (Live)",
        "2001 - The Early Songs",
        "Live/2000 - Songs",
    ]
    offered = discography(**{folder: 2.0}, **dict.fromkeys(others, 0.0))
    decided = decide(album(), offered, "Songs")
    assert {one.name.split("/", 1)[1] for one in decided.sure.values()} == {
        one.name.split("/", 1)[1] for one in discography(**{folder: 2.0})
    }


def test_what_the_albums_folder_lacks_is_left_to_an_administrator() -> None:
    """The compilation's may be the recording; what no folder has is missing."""
    offered = [
        *files(CATALOG[:3], folder="D/1999 - Songs/"),
        *files(CATALOG[:4], folder="D/2005 - The Best of All/"),
    ]
    decided = decide(album(), offered, "Songs")
    assert decided.sure.keys() == {"t1", "t2", "t3"}
    assert decided.doubtful.keys() == {"t4"}
    assert "own folder" in decided.doubtful["t4"].reason
    assert decided.missing == {"t5"}


def test_discs_that_are_called_otherwise_are_of_the_album() -> None:
    """ "CD2 - The B Sides" lies beside "CD1 - Songs"."""
    second = [replace(one, disc=2, number=(one.number or 0) - 3) for one in album()[3:]]
    offered = [
        *files(CATALOG[:3], folder="D/CD1 - Songs/"),
        *(
            replace(one, name=f"D/CD2 - The Rest/0{n} {CATALOG[n + 2]}.flac")
            for n, one in enumerate(files(CATALOG)[3:], start=1)
        ),
    ]
    assert len(decide([*album()[:3], *second], offered, "Songs").sure) == 5


def test_without_a_folder_of_its_name_the_one_with_most_of_the_album_is_it() -> None:
    """A compilation has some of the tracks, with the same numbers by chance."""
    offered = [
        *files(CATALOG, folder="D/first record/", off_s=0.9),
        *files(CATALOG[:2], folder="D/another record/", off_s=0.0),
    ]
    decided = decide(album(), offered, "Songs")
    assert {one.name.split("/")[1] for one in decided.sure.values()} == {"first record"}
    assert len(decided.sure) == 5


def test_a_folder_of_all_files_tells_nothing() -> None:
    """A torrent of one album may be called in any way."""
    for folder in ("Songs/", "Something Else/", ""):
        assert len(decide(album(), files(CATALOG, folder=folder), "Songs").sure) == 5
