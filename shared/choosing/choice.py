"""The order in which releases are tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shared.choosing import vocabulary as words
from shared.choosing.model import Profile, Release, Wanted
from shared.choosing.naming import name_of, named
from shared.choosing.refusals import LOSSLESS_DOUBTED, Case, Refusal, refusals
from shared.choosing.title import read

_DEFAULT = Profile()
# Plain CD quality is near the first, a good lossy one near the second.
_NEAREST_KBPS = {True: 850, False: 320}
_CD_MOST_KBPS = 1_411


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A release, its place in the list that was given, and what speaks against it."""

    place: int
    release: Release
    refusals: tuple[Refusal, ...]
    key: tuple[float | str, ...]

    @property
    def may_be_taken(self) -> bool:
        """Whether nothing speaks against it, not even softly."""
        return not self.refusals

    @property
    def is_last_resort(self) -> bool:
        """Whether only soft reasons speak against it."""
        return bool(self.refusals) and all(refusal.soft for refusal in self.refusals)


def judge(wanted: Wanted, releases: Sequence[Release], profile: Profile = _DEFAULT) -> list[Judged]:
    """Every release, in the order in which they are tried: the best of what may be taken first."""
    name = name_of(wanted)
    judged = []
    for place, release in enumerate(releases):
        reading = read(release.title)
        case = Case(
            wanted=wanted,
            name=name,
            release=release,
            reading=reading,
            named=named(name, reading),
            profile=profile,
        )
        against = tuple(refusals(case))
        judged.append(Judged(place=place, release=release, refusals=against, key=_key(case)))
    return sorted(judged, key=lambda each: (_rank(each), each.key))


def _rank(each: Judged) -> int:
    return 0 if each.may_be_taken else 1 if each.is_last_resort else 2


def _key(case: Case) -> tuple[float | str, ...]:
    """The first difference decides; smaller is better."""
    reading, release = case.reading, case.release
    rate = case.rate_kbps or 0.0
    lossless = _is_lossless(case)
    return (
        _container(case),
        _quality(case, lossless=lossless),
        _edition(case),
        _year(case),
        2 if reading.analogue else 1 if release.audio_files == 1 or reading.image else 0,
        0 if release.size_bytes else 1,
        1 if lossless and rate > _CD_MOST_KBPS and not reading.both_formats else 0,
        -round(math.log10(max(release.seeders, 1))),
        0 if case.files_ratio == 1 else 1,
        abs(case.any_rate_kbps - _NEAREST_KBPS[lossless]),
        release.info_hash,
        release.title,
    )


def _container(case: Case) -> int:
    if not case.holds_more:
        return 0
    return 1 if case.named.pair else 3 if case.reading.is_set else 2


def _is_lossless(case: Case) -> bool:
    if case.reading.lossless is None:
        return (case.rate_kbps or 0) >= 450
    return case.reading.lossless


def _quality(case: Case, *, lossless: bool) -> int:
    if not case.profile.prefer_lossless:
        return 0
    if lossless and (case.rate_kbps or LOSSLESS_DOUBTED) < LOSSLESS_DOUBTED:
        return 2
    return 0 if lossless else 1


def _edition(case: Case) -> int:
    wanted, found = case.name.edition, case.reading.all_words & words.EDITION
    if case.name.is_ep and "ep" in case.reading.all_words:
        return 0
    larger = bool(found & words.LARGER) != bool(wanted & words.LARGER)
    remaster = bool(wanted & words.REMASTER) and not found & words.REMASTER
    return int(larger or remaster)


def _year(case: Case) -> int:
    if case.wanted.year is None or not case.reading.years:
        return 1
    return 0 if case.wanted.year in case.reading.years else 1
