"""Albums and the torrents of them that the matching is tried on; each file knows what it is.

A `Recipe` says of what kind, `build` makes one: the same recipe the same torrent. The property test
lets hypothesis choose the recipes, the benchmark draws a realistic mix.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from shared.matching.model import Offered
from shared.matching.titles import Likeness, likeness, title_of
from shared.tracks import CatalogTrack

TOLERANCE_S = 6.0
ARTIST = "The Sample Band"

ALBUM = "Album"

TITLES = (
    *("distinct", "similar", "repeated", "untitled", "unicode", "parts", "translated"),
    # In another language: the names have other words.
    "foreign",
)
LENGTHS = ("far", "near", "equal", "mixed")
SCHEMES = (
    "01 - Title", "01. Title", "01 Title", "Title", "01", "Track 01", "Artist - 01 - Title",
    "01 - Artist - Title", "Artist - Album - 01 - Title", "01-artist-title-grp", "1-01 Title",
    "101 Title", "A1 Title", "(01) [Artist] Title", "Artist - Title", "tags", "garbage",
    "0101 Title", "T01 Title", "ZT001-Title", "Title 01", "Title (01)", "01 Title [video]",
)  # fmt: skip
_NUMBERS_ONLY = frozenset({"01", "Track 01"})
_WITH_DISC = frozenset({"1-01 Title", "101 Title", "0101 Title", "A1 Title", "tags"})
# Styles that are no numbers where a torrent has few files.
_PROVEN_BY_ALL = frozenset({"T01 Title", "ZT001-Title", "Title 01", "Title (01)", "0101 Title"})
LIES = ("none", "swap", "shuffle", "numbers", "shift")
MAPPINGS = ("none", "right", "wrong")
EXTRAS = ("bonus", "live", "sample")
# Folders with the same songs, names, numbers and lengths again, none of them the tracks.
BESIDE = (
    *("Instrumentals", "Karaoke", "Live", "Demos", "5.1 Surround", "Mono", "Commentary"),
    *("Bonus Disc", "Sampler", "Six Channels"),
)
ADDED = ("", " (Live)", " [Demo]")

_PROVEN_FILES = 4
_PLACED_SCHEMES = frozenset({"01 - Title", "01. Title", "01 Title", "1-01 Title", "0101 Title"})

_HARD_TITLES = [
    "7 Rings", "1999", "Hello - Goodbye", "Live Forever", "Remix to Ignition", "99 Luftballons",
    "22", "Semi-Charmed Life", "Intro", "Don\N{RIGHT SINGLE QUOTATION MARK}t Stop", "R.E.M.", "Act",
    "Part of Me", "(I Can't Get No) Satisfaction", "Song 2", "Rock & Roll", "Demo", "No Surprises",
    "Cover Me", "Vol. 4", "Take Five", "What's Up?", "A", "X", "Über Alles", "A-Punk", "Mix It Up",
]  # fmt: skip
_UNICODE = [
    "Группа крови", "Звезда по имени Солнце", "Спокойная ночь", "桜", "夜に駆ける", "さくらんぼ",
    "Ága Kör", "Žal", "Hoppípolla", "Ágætis byrjun", "Jóga", "Ísjaki", "ΟΔΥΣΣΕΙΑ", "Μάνα μου",
    "사랑", "봄날", "שלום", "Ça plane pour moi", "Für Elise", "Sjö", "Naïve", "Ты", "Ёлка",
]  # fmt: skip
_WORDS = (
    "amber bridge copper dawn ember falling garden harbor island jungle kingdom lantern meadow "
    "northern ocean paper quiet river silver thunder under velvet winter yellow zephyr shadow"
)
_ELSEWHERE = str.maketrans(
    "abcdefghijklmnopqrstuvwxyz", "uvkxizpyolqrghwbcdafjtenms"
) | str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "UVKXIZPYOLQRGHWBCDAFJTENMS")
_NOTES = ("", "", "", " (feat. Someone)", " - 2011 Remaster", " (Remastered 2009)")
_TAGS = ("", "", "", " [FLAC]", " (320 kbps)", " [Bonus Track]")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Of what kind an album and its torrent are."""

    tracks: int = 8
    discs: int = 1
    titles: str = "distinct"
    lengths: str = "far"
    scheme: str = "01 - Title"
    disc_folders: bool = True
    lie: str = "none"
    mapping: str = "none"
    extras: Sequence[str] = ()
    # The tracks that the torrent lacks, by their place.
    lacks: frozenset[int] = frozenset()
    # Each file twice, as FLAC and as MP3.
    doubled: bool = False
    # How far a file's length is from the catalog's, at most, either way.
    off_s: float = 0.5
    catalog_lengths: bool = True
    typed_badly: bool = False
    seed: int = 0
    own_titles: Sequence[str] = ()
    # One of BESIDE, with all files of the torrent again.
    beside: str | None = None
    # What all names have and no title.
    added: str = ""
    # Whether the torrent has a compilation as well, with every other track of the torrent.
    discography: bool = False


@dataclass(frozen=True, kw_only=True)
class Torrent:
    """An album, what a torrent offers, and the truth: file name to track id (None: no track)."""

    recipe: Recipe
    tracks: Sequence[CatalogTrack]
    offered: Sequence[Offered]
    truth: Mapping[str, str | None]
    # Titles of the files that are no track.
    extra_titles: Sequence[str]
    extra_lengths_s: Sequence[float]

    @property
    def present(self) -> frozenset[str]:
        return frozenset(track_id for track_id in self.truth.values() if track_id is not None)

    @property
    def lengths_tell(self) -> bool:
        """Whether all lengths are known and lie more than twice the tolerance apart."""
        if not self.recipe.catalog_lengths:
            return False
        lengths = sorted(
            [(track.duration_ms or 0) / 1000 for track in self.tracks]
            + list(self.extra_lengths_s)
        )  # fmt: skip
        return all(b - a > 2 * TOLERANCE_S for a, b in itertools.pairwise(lengths))

    @property
    def named(self) -> bool:
        """Whether each file's names tell a number, or a title that can be compared."""
        recipe = self.recipe
        if (recipe.titles == "foreign" or recipe.added) and not self._placed:
            return False
        if not self._styled:
            return False
        untitled = recipe.scheme in _NUMBERS_ONLY or recipe.titles in {"translated", "foreign"}
        # Sides are only numbers where the whole record is there.
        if recipe.scheme in {"Title", "Artist - Title", "A1 Title"}:
            return not untitled and self._apart
        in_which_disc = recipe.discs == 1 or recipe.disc_folders or recipe.scheme in _WITH_DISC
        return recipe.scheme != "garbage" and (in_which_disc or not untitled)

    @property
    def titles_tell(self) -> bool:
        """Whether the files' titles are right, and neither tracks nor extras are called alike."""
        recipe = self.recipe
        right = recipe.lie not in {"swap", "shuffle"} and not recipe.typed_badly
        told = recipe.scheme not in {*_NUMBERS_ONLY, "garbage"} and not recipe.added
        told = told and recipe.titles not in {"translated", "foreign"}
        told = told and self._styled and not (recipe.scheme in _PROVEN_BY_ALL and recipe.extras)
        return right and told and self.titles_differ and self._apart

    @property
    def _styled(self) -> bool:
        """Whether the names of each folder prove their style of numbers."""
        recipe = self.recipe
        if recipe.scheme not in _PROVEN_BY_ALL:
            return True
        places = [place for place in range(recipe.tracks) if place not in recipe.lacks]
        if recipe.scheme == "0101 Title" or recipe.discs == 1:
            return len(places) >= _PROVEN_FILES
        discs = Counter(self.tracks[place].disc for place in places)
        return recipe.disc_folders and min(discs.values(), default=0) >= _PROVEN_FILES

    @property
    def _placed(self) -> bool:
        """Whether disc, number and length prove what titles do not."""
        recipe = self.recipe
        numbered = recipe.scheme in _PLACED_SCHEMES and recipe.discs == 1
        exact = recipe.off_s <= 0.5 and recipe.catalog_lengths and self.lengths_tell
        whole = len(self.tracks) >= 3 and not recipe.lacks and not recipe.extras
        return numbered and exact and whole and not self.names_lie and self.titles_differ

    @property
    def titles_differ(self) -> bool:
        """Whether no two tracks are called alike."""
        cores = [title_of(track.title).core for track in self.tracks]
        return len(set(cores)) == len(cores)

    @property
    def _apart(self) -> bool:
        """Whether the titles of the extras are clearly no track's."""
        return not any(
            likeness(title_of(track.title), title_of(extra)) >= Likeness.UNKNOWN
            for track in self.tracks
            for extra in self.extra_titles
        )

    @property
    def names_lie(self) -> bool:
        return self.recipe.lie != "none"

    def unmeasured(self) -> list[Offered]:
        return [replace(one, duration_s=None, channels=None) for one in self.offered]


def build(recipe: Recipe) -> Torrent:
    """The torrent of the recipe; the same one every time."""
    made = random.Random(recipe.seed)
    titles = _titles(recipe, made)
    lengths = _lengths(recipe, made, recipe.tracks + len(recipe.extras))
    tracks = _tracks(recipe, titles, lengths)
    maker = _Maker(recipe, made)
    for place, named in enumerate(_named_as(recipe, tracks, made)):
        if place not in recipe.lacks:
            maker.add(tracks[place].id, named, lengths[place])
    extra_titles = [
        _extra_title(kind, count, tracks, made) for count, kind in enumerate(recipe.extras)
    ]
    last = max(track.number or 0 for track in tracks)
    for count, title in enumerate(extra_titles):
        like = replace(tracks[-1], title=title, number=last + 1 + count)
        maker.add(None, like, 30.0 if title == "sample" else lengths[len(tracks) + count])
    maker.repeat(tracks)
    offered = list(maker.files.values())
    made.shuffle(offered)
    return Torrent(
        recipe=recipe,
        tracks=tracks,
        offered=offered,
        truth=maker.truth,
        extra_titles=extra_titles,
        extra_lengths_s=lengths[len(tracks) :],
    )


def _titles(recipe: Recipe, made: random.Random) -> list[str]:
    count = recipe.tracks
    if recipe.own_titles:
        return [recipe.own_titles[place % len(recipe.own_titles)] for place in range(count)]
    words = _WORDS.split()
    plain = [" ".join(made.sample(words, 2)).title() for _ in range(count)]
    stem = " ".join(made.sample(words, 3)).title()
    cyrillic = [*_UNICODE[:3], "Весна", "Лето", "Ночь"]
    hard = made.sample([*_HARD_TITLES, *plain], count)
    return {
        "similar": [f"{stem}{chr(ord('a') + place % 26) * 2}" for place in range(count)],
        "repeated": [plain[place % max(1, count // 2)] for place in range(count)],
        "untitled": ["Untitled"] * count,
        "unicode": [*made.sample(_UNICODE, min(count, len(_UNICODE))), *plain][:count],
        "translated": [*made.sample(cyrillic, min(count, len(cyrillic))), *plain][:count],
        "foreign": [*dict.fromkeys(plain), *(f"Further {place}" for place in range(count))][:count],
        "parts": [f"Suite, Pt. {place + 1}" for place in range(count)],
        "distinct": [*dict.fromkeys(hard), *(f"Further {place}" for place in range(count))][:count],
    }[recipe.titles]


def _lengths(recipe: Recipe, made: random.Random, count: int) -> list[float]:
    match recipe.lengths:
        case "far":
            step = 2 * TOLERANCE_S + 2 * recipe.off_s + 1
            lengths = [90 + place * step for place in range(count)]
            made.shuffle(lengths)
            return lengths
        case "near":
            return [round(200 + made.uniform(-8, 8), 2) for _ in range(count)]
        case "equal":
            return [200.0] * count
        case _:
            return [round(max(40.0, made.gauss(230, 60)), 2) for _ in range(count)]


def _tracks(recipe: Recipe, titles: Sequence[str], lengths: Sequence[float]) -> list[CatalogTrack]:
    made = random.Random(recipe.seed + 1)
    per_disc = -(-recipe.tracks // recipe.discs)
    return [
        CatalogTrack(
            id=f"track{place:03d}",
            title=title + (made.choice(_NOTES) if not recipe.own_titles else ""),
            artist=ARTIST,
            disc=place // per_disc + 1,
            number=place % per_disc + 1,
            duration_ms=round(lengths[place] * 1000) if recipe.catalog_lengths else None,
        )
        for place, title in enumerate(titles)
    ]


def _named_as(
    recipe: Recipe, tracks: Sequence[CatalogTrack], made: random.Random
) -> Sequence[CatalogTrack]:
    """What the name of each track's file says it is."""
    order = list(range(len(tracks)))
    if recipe.lie == "swap" and len(tracks) > 1:
        one, other = made.sample(order, 2)
        order[one], order[other] = other, one
    elif recipe.lie in {"shuffle", "numbers"}:
        made.shuffle(order)
    elif recipe.lie == "shift":
        order = [*order[1:], order[0]]
    said = [tracks[place] for place in order]
    if recipe.lie in {"numbers", "shift"}:
        return [
            replace(track, number=other.number, disc=other.disc)
            for track, other in zip(tracks, said, strict=True)
        ]
    return said


def _extra_title(kind: str, count: int, tracks: Sequence[CatalogTrack], made: random.Random) -> str:
    if kind == "live":
        return f"{made.choice(tracks).title} (Live)"
    return f"Something Quite Different {count}" if kind == "bonus" else "sample"


class _Maker:
    """Collects the files of a torrent, with the truth about each."""

    def __init__(self, recipe: Recipe, made: random.Random) -> None:
        self._recipe = recipe
        self._made = made
        self.files: dict[str, Offered] = {}
        self.truth: dict[str, str | None] = {}

    def add(self, track_id: str | None, named: CatalogTrack, length_s: float) -> None:
        """A file of that length, named so, or two; what is taken gets another name."""
        recipe = self._recipe
        length_s = round(length_s + self._made.uniform(-recipe.off_s, recipe.off_s), 3)
        twice = ((".flac", "FLAC/"), (".mp3", "MP3/"))
        for ending, folder in twice if recipe.doubled else ((".flac", ""),):
            stem = _stem(recipe, named, self._made)
            root = "Discography/1999 - Album" if recipe.discography else "Album (1999)"
            name = f"{ARTIST} - {root}/{folder}{_folder(recipe, named)}{stem}"
            while f"{name}{ending}" in self.files:
                name += "_"
            per_s = 100_000 if ending == ".flac" else 30_000
            one = Offered(
                name=f"{name}{ending}",
                size_bytes=round(length_s * per_s),
                duration_s=length_s,
                mapped=_mapped(recipe, named, self._made),
                channels=2,
            )
            self.files[one.name] = self._tagged(one, named) if recipe.scheme == "tags" else one
            self.truth[one.name] = track_id

    def repeat(self, tracks: Sequence[CatalogTrack]) -> None:
        """The same songs again, in a folder beside and in a compilation."""
        of_tracks = [one for one in self.files.values() if self.truth[one.name] is not None]
        for one in of_tracks if self._recipe.beside else ():
            head, _, tail = one.name.rpartition("/")
            channels = 6 if self._recipe.beside in {"Six Channels", "5.1 Surround"} else 2
            self._put(replace(one, name=f"{head}/{self._recipe.beside}/{tail}", channels=channels))
        for number, one in enumerate(of_tracks[::2] if self._recipe.discography else (), start=1):
            (track,) = [each for each in tracks if each.id == self.truth[one.name]]
            title = track.title.replace("/", "_").replace("?", "_")
            name = f"{ARTIST} - Discography/2009 - Many Years/{number:02d} - {title}.flac"
            self._put(replace(one, name=name))

    def _put(self, one: Offered) -> None:
        self.files[one.name] = one
        self.truth[one.name] = None

    def _tagged(self, one: Offered, named: CatalogTrack) -> Offered:
        title = _shown(self._recipe, named.title, self._made)
        return replace(one, title=title, number=named.number, disc=named.disc)


def _mapped(recipe: Recipe, named: CatalogTrack, made: random.Random) -> Mapping[int, float]:
    if recipe.mapping == "none" or named.number is None:
        return {}
    number = named.number if recipe.mapping == "right" else made.randint(1, recipe.tracks)
    return {number: round(made.uniform(0.5, 1), 2)}


def _folder(recipe: Recipe, named: CatalogTrack) -> str:
    in_name = recipe.scheme in _WITH_DISC
    return f"CD{named.disc}/" if recipe.discs > 1 and recipe.disc_folders and not in_name else ""


def _stem(recipe: Recipe, named: CatalogTrack, made: random.Random) -> str:
    title = _shown(recipe, named.title, made)
    number, disc = named.number or 0, named.disc or 1
    match recipe.scheme:
        case "01-artist-title-grp":
            words = title.replace(" - ", " ").replace("-", " ").replace(" ", "_").lower()
            return f"{number:02d}-{ARTIST.replace(' ', '_').lower()}-{words}-grp"
        case "tags" | "garbage":
            return f"{made.getrandbits(48):012x}"
        case "A1 Title":
            return f"{'ABCDEFGH'[disc - 1]}{number} {title}"
        case "0101 Title" | "ZT001-Title":
            place = (
                f"{disc:02d}{number:02d} " if recipe.scheme == "0101 Title" else f"ZT{number:03}-"
            )
            return f"{place}{title}"
        case "01 Title [video]":
            letters = "kJqP7wiX5Fk-Z_b3T"
            code = "".join(made.choice(letters) for _ in range(9))
            return (
                f"{number:02d} {title} [a{code}Q]" if "[" not in title else f"{number:02d} {title}"
            )
        case scheme:
            return (
                scheme.replace("1-01", f"{disc}-{number:02d}")
                .replace("101", f"{disc}{number:02d}")
                .replace("01", f"{number:02d}")
                .replace("Artist", ARTIST)
                .replace("Title", title)
            )


def _shown(recipe: Recipe, title: str, made: random.Random) -> str:
    """The title as a file's name has it: without what no file system takes, noted and mistyped."""
    if recipe.titles == "translated" and not title.isascii():
        plain = {
            "Группа крови": "Gruppa Krovi",
            "Звезда по имени Солнце": "Zvezda Po Imeni Solntse",
        }
        title = plain.get(title, "".join("abvgdezijklmnoprstuf"[ord(char) % 20] for char in title))
    if recipe.titles == "foreign":
        title = title.translate(_ELSEWHERE)
    if recipe.own_titles:
        return title.replace("/", "_") + recipe.added
    for note in _NOTES:
        title = title.removesuffix(note) if note and made.random() < 0.5 else title
    title = title.replace("/", "_").replace("?", "_") + recipe.added
    title += made.choice(_TAGS)
    if recipe.typed_badly and len(title) > 9 and made.random() < 0.3:
        at = made.randrange(1, 7)
        title = title[:at] + title[at + 1 :]
    return title
