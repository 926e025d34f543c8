"""From what indexers list to what is tried, in order, and why the rest is not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from shared.choosing.choice import Judged, judge
from shared.choosing.model import Profile, Release, Wanted
from shared.matching.titles import fold

_MIB = 1024 * 1024
# Only a user takes what is too large; what no seeder has, never comes.
_NEVER_ALONE = frozenset({"too large", "seeders"})
_MOST_TOLD = 20


@dataclass(frozen=True, kw_only=True)
class Blocked:
    """Releases that did not bring a track: `keys` as `key_of` makes them, and hashes."""

    keys: frozenset[str] = frozenset()
    info_hashes: frozenset[str] = frozenset()

    def has(self, release: Release) -> bool:
        """Whether it is one of them, also under another hash or from another indexer."""
        if release.info_hash and release.info_hash in self.info_hashes:
            return True
        return not self.keys.isdisjoint(_near(release))


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is tried, the best first; and to be shown, what is not: title and sentence."""

    tried: tuple[Judged, ...]
    last: tuple[Judged, ...]
    refused: tuple[tuple[str, str], ...]


def has_all(blocked: Sequence[Blocked], release: Release) -> bool:
    """Whether the release is blocked for every wanted track."""
    return bool(blocked) and all(each.has(release) for each in blocked)


def key_of(release: Release) -> str:
    """A release by title and size: what stays the same where its hash is not known."""
    return _key(release.title, release.size_bytes // _MIB)


def select(
    wanted: Wanted,
    releases: Sequence[Release],
    profile: Profile,
    *,
    blocked: Sequence[Blocked],
    stalled: Sequence[Blocked],
) -> Selection:
    """Sort the releases into those that are tried, those of the last resort, and the rest.

    Both are given for each wanted track, and count where they hold for all. `stalled` are those
    that were tried and did not come: the last of the last resort.
    """
    judged = [
        each for each in judge(wanted, releases, profile) if not has_all(blocked, each.release)
    ]
    late = {each.place for each in judged if has_all(stalled, each.release)}
    tried = [each for each in judged if each.may_be_taken and each.place not in late]
    soft = [
        each
        for each in judged
        if each.is_last_resort and not {r.rule for r in each.refusals} & _NEVER_ALONE
    ]
    last = [each for each in soft if each.place not in late]
    last += [each for each in judged if each.place in late and (each.may_be_taken or each in soft)]
    taken = {each.place for each in (*tried, *last)}
    refused = [
        (each.release.title[:200], each.refusals[0].sentence)
        for each in judged
        if each.place not in taken and each.refusals
    ]
    refused += [
        (each.title[:200], "it was tried before") for each in releases if has_all(blocked, each)
    ]
    return Selection(tried=tuple(tried), last=tuple(last), refused=tuple(refused[:_MOST_TOLD]))


def _near(release: Release) -> Collection[str]:
    """Its key, and those of the sizes next to it: indexers round."""
    mib = release.size_bytes // _MIB
    return {_key(release.title, each) for each in (mib - 1, mib, mib + 1)}


def _key(title: str, mib: int) -> str:
    return f"{' '.join(fold(title).split())[:400]}|{mib}"
