"""The trials: what is listed, what is asked for, and what goes wrong meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from tests.live import troubles
from tests.live.lab import Lab
from tests.live.music import Album, File, Music, Release, Track, files_of, image_of

Client: TypeAlias = Literal["librqbit", "qbittorrent"]
Trouble: TypeAlias = Callable[[Lab], Coroutine[Any, Any, None]]
CLIENTS: tuple[Client, ...] = ("librqbit", "qbittorrent")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a trial asks for: whole albums, or tracks one by one."""

    albums: Sequence[Album] = ()
    tracks: Sequence[Track] = ()
    # Albums of which `tracks` are, for what is counted by album.
    albums_of_tracks: int = 0
    # A person put this one into the torrent client before we were asked.
    there_before: Release | None = None
    # Somebody had this one downloaded, and removed the torrent but not its files.
    left_behind: Release | None = None
    arrives: bool = True

    @property
    def all_tracks(self) -> tuple[Track, ...]:
        """Every track that is asked for."""
        return (*(track for album in self.albums for track in album.tracks), *self.tracks)

    @property
    def album_count(self) -> int:
        """Over how many albums searches and downloads are counted."""
        return len(self.albums) + self.albums_of_tracks


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial, and what it has to hold: at most so many searches and downloads an album."""

    name: str
    build: Callable[[Music], Wanted]
    # What is done to the surroundings before the first request, and while the product works.
    before: Trouble | None = None
    trouble: Trouble | None = None
    clients: tuple[Client, ...] = CLIENTS
    # Whether the albums are asked for one by one while the trouble lasts, or all at once.
    spread_s: float = 0.0
    searches: float = 2.0
    downloads: float = 1.1
    # None: the trial only tells.
    must_hold: bool = True
    lost: int | None = 0
    limit_s: float = 180.0
    # So long nothing has to change for the trial to be over.
    quiet_s: float = 25.0
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def _plain(music: Music, count: int, tracks: int = 5, *, rate_kib_s: int = 0) -> list[Album]:
    """Albums that are each listed once, in lossless, in folders of other names."""
    artists = ("Kestrel Union", "Ida Crane", "Halden", "Marrow Pines", "Wren and Ash", "Ode Hollow")
    places = ("Harbour", "Meadow", "Station", "Orchard", "Quarry", "Lighthouse", "Causeway")
    colours = ("Grey", "Amber", "Scarlet", "Ivory", "Cobalt", "Violet", "Umber")
    albums = []
    for number in range(count):
        name = f"{colours[number // 7 % 7]} {places[number % 7]}"
        album = music.album(artists[number % 6], name, 1980 + number, tracks)
        music.offer(
            Release(
                title=f"{album.artist} - {album.name} ({album.year}) [FLAC]",
                folder=f"{album.year} {album.name}",
                files=files_of(album),
                rate_kib_s=rate_kib_s,
            )
        )
        albums.append(album)
    return albums


def _folders(music: Music) -> Wanted:
    first = music.album("Kestrel Union", "Paper Lighthouse", 2004, 5)
    second = music.album("Halden", "Ohm Street", 2011, 5)
    third = music.album("Ida Crane", "Grey Coast", 1971, 4)
    for album, title, folder in (
        (first, "Kestrel Union - Paper Lighthouse (2004) [FLAC]", "2004 - Paper Lighthouse"),
        (second, "Halden-Ohm_Street-WEB-FLAC-2011-OZMO", "halden.os.2011"),
        (
            third,
            "(Folk Rock) [CD] Ida Crane - Grey Coast - 1971, FLAC (tracks), lossless",
            "IC - GC",
        ),
    ):
        music.offer(Release(title=title, folder=folder, files=files_of(album)))
    return Wanted(albums=(first, second, third))


def _six_candidates(music: Music) -> Wanted:
    albums = [
        music.album("Marrow Pines", "Salt Cathedral", 2014, 5),
        music.album("Gale Union", "Engine Room", 1987, 5),
        music.album("Wren and Ash", "Low Country", 2016, 5),
    ]
    for album in albums:
        name, year = f"{album.artist} - {album.name}", album.year
        live, tribute = music.another(album), music.another(album)
        instrumental, karaoke = music.another(album), music.another(album)
        lossy = files_of(album, "mp3")
        offers: Sequence[tuple[str, Mapping[str, File], int]] = (
            (f"{name} ({year}) [FLAC]", files_of(album), 12),
            (f"{name} ({year}) [MP3 320]", lossy, 20),
            (f"{name} (Live at the Roundhouse) ({year}) [FLAC]", files_of(album, tones=live), 45),
            (f"A Tribute to {name} ({year}) [FLAC]", files_of(album, tones=tribute), 60),
            (f"{name} (Instrumental) ({year}) [FLAC]", files_of(album, tones=instrumental), 33),
            (
                f"{name} - Karaoke Versions ({year}) [MP3 320]",
                files_of(album, "mp3", tones=karaoke),
                50,
            ),
        )
        for number, (title, files, seeders) in enumerate(offers):
            folder = f"{album.name} {number}"
            music.offer(Release(title=title, folder=folder, files=files, seeders=seeders))
    return Wanted(albums=albums)


def _private(music: Music) -> Wanted:
    albums = [
        music.album("Kestrel Union", "Amber Orchard", 2003, 6),
        music.album("Ode Hollow", "Nine Rivers", 2012, 6),
        music.album("Halden", "Relay", 2016, 6),
    ]
    in_parts = music.album("Ida Crane", "Small Lanterns", 1973, 5)
    single = music.album("Tamsin Oake", "First Light", 2018, ["First Light"])
    for album in (*albums, in_parts):
        music.offer(
            Release(
                title=f"{album.artist} - {album.name} [{album.year}] [Album] [FLAC Lossless / CD]",
                folder=f"{album.artist}.{album.year}",
                files=files_of(album),
                private=True,
            )
        )
    [(name, file)] = files_of(single, name="Tamsin Oake - {title}").items()
    title = "Tamsin Oake - First Light [2018] [Single] [FLAC / Lossless / WEB]"
    music.offer(Release(title=title, folder=None, files={name: file}, private=True))
    return Wanted(albums=albums, tracks=(*in_parts.tracks[1:4], *single.tracks), albums_of_tracks=2)


def _discography(music: Music) -> Wanted:
    albums = [
        music.album("Gale Union", "Engine Room", 1987, 3),
        music.album("Gale Union", "Tall Ships", 1990, 3),
        music.album("Gale Union", "Copper Sky", 1994, 3),
    ]
    files = {
        f"{album.year} - {album.name}/{name}": file
        for album in albums
        for name, file in files_of(album).items()
    }
    title = "Gale Union - Discography 1987-1994 (3 albums) [FLAC]"
    music.offer(Release(title=title, folder="Gale Union", files=files))
    return Wanted(albums=albums)


def _singles(music: Music) -> Wanted:
    [whole] = _plain(music, 1)
    alone = music.album("Mono Act", "Single Song", 2020, ["Single Song"])
    [(name, file)] = files_of(alone, name="Mono Act - {title}").items()
    title = "Mono Act - Single Song (2020) [FLAC]"
    music.offer(Release(title=title, folder=None, files={name: file}))
    unlisted = music.album("Loose Thread", "Harbour Lights", 2009, ["Night Ferry", "Slack Water"])
    wanted = unlisted.tracks[0]
    [name] = [name for name in files_of(unlisted, "mp3", name="{title}") if wanted.name in name]
    title = "Loose Thread - Night Ferry (2009) [MP3 320]"
    files = {name: files_of(unlisted, "mp3", name="{title}")[name]}
    music.offer(Release(title=title, folder=None, files=files))
    tracks = (*whole.tracks[0:3:2], *alone.tracks, wanted)
    return Wanted(tracks=tracks, albums_of_tracks=3)


def _large(music: Music) -> Wanted:
    first = music.album("Gale Union", "Tall Ships", 1990, 2, shortest_s=180)
    second = music.album("Halden", "Long Wave", 2019, 2, shortest_s=170)
    title = "Gale Union - Tall Ships (1990) [WAV]"
    music.offer(Release(title=title, folder="TS wav", files=files_of(first, "wav")))
    title = "Halden - Long Wave (2019) [FLAC]"
    music.offer(Release(title=title, folder="LW", files=files_of(second)))
    return Wanted(albums=(first, second))


def _layouts(music: Music) -> Wanted:
    discs = music.album("Marrow Pines", "Salt Cathedral", 2014, 4, discs=2)
    image = music.album("Kessel Gray", "Relay Towers", 2001, 4)
    cyrillic = music.album(
        "Кедры", "Тихий ход", 2006, ["Северный ветер", "Белые ночи", "Старый мост", "Ключи"]
    )
    sides = music.album("Gale Union", "Tall Ships", 1979, 4)
    in_discs = files_of(discs, name="CD{disc}/{number:02d} - {title}")
    title = "Marrow Pines - Salt Cathedral (2014) 2CD [FLAC]"
    music.offer(Release(title=title, folder="mp-sc", files=in_discs))
    title = "(Rock) [CD] Kessel Gray - Relay Towers - 2001, FLAC (image+.cue), lossless"
    music.offer(Release(title=title, folder="KG", files=image_of(image, "Relay Towers")))
    title = "(Rock) [CD] Кедры - Тихий ход - 2006, FLAC (tracks), lossless"
    files = files_of(cyrillic, name="{number:02d}. {title}")
    music.offer(Release(title=title, folder="2006 Тихий ход", files=files))
    halves = {
        f"{'AABB'[place]}{place % 2 + 1} - {name.split(' - ', 1)[1]}": file
        for place, (name, file) in enumerate(files_of(sides).items())
    }
    title = "Gale Union - Tall Ships (1979) [FLAC] [Vinyl]"
    music.offer(Release(title=title, folder="TS vinyl", files=halves))
    return Wanted(albums=(discs, image, cyrillic, sides))


def _untitled(name: str) -> Callable[[Music], Wanted]:
    """An album whose files have these names, which do not tell the tracks' titles."""

    def build(music: Music) -> Wanted:
        album = music.album("Ode Hollow", "Nine Rivers", 2012, 5)
        title = f"{album.artist} - {album.name} ({album.year}) [FLAC]"
        files = files_of(album, name=name)
        music.offer(Release(title=title, folder="Nine Rivers", files=files))
        return Wanted(albums=(album,))

    return build


def _dead(music: Music) -> Wanted:
    albums = [
        music.album("Kestrel Union", "Amber Orchard", 2003, 4),
        music.album("Ida Crane", "Grey Coast", 1971, 4),
    ]
    for album in albums:
        name = f"{album.artist} - {album.name} ({album.year})"
        dead = files_of(album)
        folder = f"{album.name} lossless"
        music.offer(
            Release(title=f"{name} [FLAC]", folder=folder, files=dead, seeders=90, seeded=False)
        )
        lossy = files_of(album, "mp3")
        folder = f"{album.name} 320"
        music.offer(Release(title=f"{name} [MP3 320]", folder=folder, files=lossy, seeders=5))
    return Wanted(albums=albums)


def _nobody(music: Music) -> Wanted:
    album = music.album("Nobody Known", "Never Pressed", 1999, 12)
    _plain(music, 2)
    return Wanted(albums=(album,), arrives=False)


def _there_before(music: Music) -> Wanted:
    [album] = _plain(music, 1)
    return Wanted(albums=(album,), there_before=music.releases[-1])


def _left_behind(music: Music) -> Wanted:
    [album] = _plain(music, 1)
    return Wanted(albums=(album,), left_behind=music.releases[-1])


def _one_folder(name: str) -> Callable[[Music], Wanted]:
    """Two albums whose torrents have one folder, and files of these names."""

    def build(music: Music) -> Wanted:
        albums = [
            music.album("Tamsin Oake", "First Light", 2018, 4),
            music.album("Ode Hollow", "Nine Rivers", 2012, 4),
        ]
        for album in albums:
            title = f"{album.artist} - {album.name} ({album.year}) [FLAC]"
            music.offer(Release(title=title, folder="FLAC", files=files_of(album, name=name)))
        return Wanted(albums=albums)

    return build


def _albums(count: int, *, rate_kib_s: int = 0, tracks: int = 5) -> Callable[[Music], Wanted]:
    return lambda music: Wanted(albums=_plain(music, count, tracks, rate_kib_s=rate_kib_s))


TRIALS = (
    Trial(name="titles that are not the folders", build=_folders),
    Trial(name="six candidates an album", build=_six_candidates),
    Trial(name="private tracker", build=_private),
    Trial(name="one discography, three requests", build=_discography),
    Trial(name="singles", build=_singles),
    Trial(name="two discs, image, other script, sides", build=_layouts),
    Trial(name="files without titles", build=_untitled("Track {number:02d}")),
    Trial(
        name="files that rippers name",
        build=_untitled("{number:02d} - Track {number:02d}"),
        must_hold=False,
    ),
    Trial(name="40 albums of small files", build=_albums(40), limit_s=400),
    Trial(name="large files", build=_large, limit_s=300, quiet_s=60),
    Trial(name="there before", build=_there_before),
    Trial(name="removed, its files left", build=_left_behind),
    Trial(
        name="dead seeds and a second source",
        build=_dead,
        downloads=2.0,
        env={"STALL_TIMEOUT_S": "5"},
    ),
    Trial(name="nobody offers it", build=_nobody, searches=3.0, lost=None),
    Trial(
        name="Torrentino restarted",
        build=_albums(4, rate_kib_s=300),
        trouble=troubles.torrentino_restarted,
        quiet_s=60,
    ),
    Trial(
        name="Torrentino killed while it searches",
        build=_albums(6),
        before=troubles.searches_are_slow,
        trouble=troubles.torrentino_killed_while_it_searches,
        quiet_s=60,
    ),
    Trial(
        name="our services killed",
        build=_albums(8, rate_kib_s=600),
        trouble=troubles.services_killed,
        spread_s=24.0,
        lost=None,
        # A search that a dead worker had in hand is asked again after its lease.
        quiet_s=100,
    ),
    Trial(
        name="client away",
        build=_albums(4, rate_kib_s=300),
        trouble=troubles.client_away,
        clients=("qbittorrent",),
        quiet_s=60,
    ),
    Trial(
        name="indexer away",
        build=_albums(4),
        before=troubles.indexer_fails,
        trouble=troubles.indexer_away,
        quiet_s=60,
    ),
    Trial(
        name="two torrents with one folder",
        build=_one_folder("{number:02d} - {title}"),
    ),
    Trial(
        name="two torrents with the same files' names",
        build=_one_folder("{number:02d}"),
        must_hold=False,
    ),
)
