"""Why a release is not taken, each reason with its sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from shared.choosing import vocabulary as words
from shared.choosing.model import Profile, Release, Wanted
from shared.choosing.naming import Name, Named
from shared.choosing.placeable import refused_formats
from shared.choosing.title import Reading

# In kbit/s, implied by bytes and length: below is a part, in between the label is not believed, and
# above is more than any stereo album has.
LOSSLESS_LEAST, LOSSLESS_DOUBTED, MOST = 250, 400, 9_216
_ANY_LEAST = 60
_LOSSY_LEAST = 0.72
_SET_LEAST = {True: 250, False: 150, None: 150}
_SET_ALBUM_S = 43 * 60.0
# Of less than this, covers and headers are too much for bytes to tell anything.
_TELLING_S = 300.0
# Of the wanted number of tracks: fewer are a part, more are another or a larger album.
FILES_LEAST, FILES_MOST = 0.95, 1.8


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A reason. A soft one leaves the release as a last resort, or to a user."""

    rule: str
    sentence: str
    soft: bool = False


@dataclass(frozen=True, kw_only=True)
class Case:
    """A release beside what is wanted, with all that its title says."""

    wanted: Wanted
    name: Name
    release: Release
    reading: Reading
    named: Named
    profile: Profile

    @property
    def rate_kbps(self) -> float | None:
        """Bytes over the wanted length; None where no size is known, or too little is wanted."""
        if not self.release.size_bytes or self.wanted.length_s < _TELLING_S:
            return None
        return self.any_rate_kbps

    @property
    def any_rate_kbps(self) -> float:
        """The same also where it tells little, for an order; 0 where no size is known."""
        return self.release.size_bytes * 8 / self.wanted.length_s / 1000

    @property
    def files_ratio(self) -> float | None:
        """Audio files over wanted tracks; both formats at once count once."""
        files = self.release.audio_files
        if files is None or (files == 1 and self.wanted.tracks > 1):
            return None  # not known, or an image with its sheet
        return files / (2 if self.reading.both_formats else 1) / self.wanted.tracks

    @property
    def holds_more(self) -> bool:
        """Whether what is wanted has to be taken out of it."""
        if self.named.pair or self.reading.is_set or self.reading.albums:
            return True
        return (self.files_ratio or 1) >= FILES_MOST


def refusals(case: Case) -> Iterator[Refusal]:
    """All reasons against a release, the hard ones first."""
    yield from _of_the_name(case)
    yield from _of_the_recording(case)
    yield from _of_the_year(case)
    yield from _of_the_size(case)
    yield from _of_the_source(case)


def _of_the_name(case: Case) -> Iterator[Refusal]:
    named = case.named
    if not named.artist:
        yield Refusal(rule="artist", sentence="it does not name the artist in the artist's place")
        return
    # A set has a name of its own; its years tell whether it holds the album.
    a_set = case.reading.is_set and (not named.album or case.reading.span is not None)
    if a_set:
        return
    if not named.album:
        yield Refusal(rule="album", sentence="it does not name the album")
    elif named.foreign:
        more = ", ".join(named.foreign[:5])
        yield Refusal(rule="foreign", sentence=f"its name says more: {more}")


def _of_the_recording(case: Case) -> Iterator[Refusal]:
    # More often than in the name itself: "Live Oak" is an artist, "Live Oak - Live" a concert.
    found, wanted = Counter(case.reading.markers), case.name.markers
    if more := sorted(found - wanted):
        yield Refusal(rule="recording", sentence=f"it is another recording: {', '.join(more)}")
    if (lacks := sorted(wanted - found)) and not case.reading.is_set:
        yield Refusal(rule="recording", sentence=f"it does not say {', '.join(lacks)}")
    number = [
        w for w in case.reading.all_words if w.isdecimal() and f"part {w} " in case.reading.text
    ]
    if wanted and number and not any(w in case.name.core for w in number):
        yield Refusal(rule="recording", sentence=f"it is part {number[0]} of a series")
    known = case.reading.all_words
    bad = sorted(known & words.NOT_AUDIO)
    if bad or any(f" {sign} " in case.reading.text for sign in words.SURROUND):
        yield Refusal(
            rule="kind", sentence=f"it is no stereo audio: {', '.join(bad) or 'surround'}"
        )


def _of_the_year(case: Case) -> Iterator[Refusal]:
    year, reading = case.wanted.year, case.reading
    if year is None:
        return
    if case.holds_more and reading.span is not None:
        if not reading.span[0] <= year <= reading.span[1]:
            yield Refusal(rule="set", sentence=f"it holds {reading.span[0]} to {reading.span[1]}")
        return
    if not reading.years or any(abs(found - year) <= 1 for found in reading.years):
        return
    dressed = case.name.edition | (reading.all_words & words.EDITION)
    if dressed & (words.REMASTER | words.LARGER) or "reissue" in reading.all_words:
        return
    sentence = f"it is of {', '.join(map(str, sorted(reading.years)))}, not of {year}"
    other = case.holds_more or case.name.self_titled or reading.concert
    yield Refusal(rule="year", sentence=sentence, soft=not other)


def _of_the_size(case: Case) -> Iterator[Refusal]:
    reading, rate = case.reading, case.rate_kbps
    if _is_a_part(case):
        yield Refusal(rule="part", sentence="it says that it is a part of the album")
    ratio = case.files_ratio
    if ratio is not None and ratio < FILES_LEAST:
        larger = bool(case.name.edition & words.LARGER)
        sentence = f"it has {case.release.audio_files} of {case.wanted.tracks} tracks"
        yield Refusal(rule="part", sentence=sentence, soft=larger)
    if rate is None:
        return
    if case.release.size_bytes > case.profile.max_grab_bytes:
        size = case.release.size_bytes / 1e9
        yield Refusal(rule="too large", sentence=f"{size:.1f} GB is too large", soft=True)
    if case.reading.is_set:
        yield from _of_a_set(case)
        return
    least = LOSSLESS_LEAST if reading.lossless else (reading.rate_kbps or 0) * _LOSSY_LEAST
    if rate < max(least, _ANY_LEAST) and not _low_label(case):
        yield Refusal(rule="part", sentence=f"{rate:.0f} kbit/s are too few for the whole album")
    if rate > MOST and not case.holds_more:
        yield Refusal(rule="size", sentence=f"{rate:.0f} kbit/s are no album", soft=True)


def _low_label(case: Case) -> bool:
    return bool(case.reading.rate_kbps and case.reading.rate_kbps < case.profile.min_bitrate_kbps)


def _is_a_part(case: Case) -> bool:
    text, known = case.reading.text, case.reading.all_words
    single = known & {"single", "cds", "cdm", "vls"} and case.wanted.kind == "album"
    if case.reading.is_set:
        return False
    halved = case.reading.disc is not None and case.wanted.kind != "single"
    return bool(single or halved or " bonus tracks " in text)


def _of_a_set(case: Case) -> Iterator[Refusal]:
    albums = case.reading.albums
    if albums:
        rate = case.release.size_bytes * 8 / (albums * _SET_ALBUM_S) / 1000
        if rate < _SET_LEAST[case.reading.lossless]:
            yield Refusal(rule="set", sentence=f"{rate:.0f} kbit/s are too few for {albums} albums")


def _of_the_source(case: Case) -> Iterator[Refusal]:
    wanted, accepted = case.wanted, case.profile.accepted
    if said := refused_formats(case.release.title, (wanted.artist, wanted.album), accepted):
        sentence = f"it is in {', '.join(said)}, which is not placed"
        if any(map(accepted.decoded, said)):
            sentence += f" with AUDIO_PLAYABLE={accepted.playable}"
        yield Refusal(rule="format", sentence=sentence)
    label, least = case.reading.rate_kbps, case.profile.min_bitrate_kbps
    if label is not None and label < least and not case.reading.lossless:
        yield Refusal(rule="quality", sentence=f"{label} kbit/s are below {least}")
    if case.release.seeders <= 0:
        yield Refusal(rule="seeders", sentence="it has no seeders", soft=True)
