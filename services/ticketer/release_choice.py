"""Which release is tried: first what is at the client already, then what a search finds."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.ticketer.direct_claims import Work
from services.ticketer.groups import Kind
from services.ticketer.release_search import ReleaseSearch
from services.ticketer.wanted import Want
from shared.choosing.choice import Judged
from shared.choosing.model import Profile, Release, Wanted
from shared.choosing.selection import select
from shared.db.blocklist import OfTrack
from shared.errors import AttemptFailed, ErrorType

_MOST_TOLD = 20


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A release that may be tried. `kind`: what it is a release of."""

    release: Release
    links: tuple[str, ...]
    kind: Kind


class NothingSuitable(AttemptFailed):
    """No release that is listed will do; `failed` are the indexers that could not be asked."""

    def __init__(self, message: str, refused: Sequence[tuple[str, str]], failed: Sequence[str]):
        evidence = {
            "releases": [{"title": title, "why": why} for title, why in refused],
            "indexers_failed": list(failed),
        }
        super().__init__(ErrorType.NOT_FOUND, message, evidence)
        self.failed = tuple(failed)


class Chooser:
    """Judges release after release, and searches only if none suits before."""

    def __init__(self, search: ReleaseSearch, profile: Profile) -> None:
        self.search = search
        self._profile = profile

    async def candidates(
        self,
        work: Work,
        *,
        blocked: Mapping[str, OfTrack],
        brought: Sequence[Release],
        there: Collection[str],
    ) -> list[Candidate]:
        """What is tried, in order. `brought`: by our downloads, `there`: all hashes of the client.

        Raises:
            NothingSuitable: nothing is.
            NoTurn, Unavailable: it cannot be searched for now.
        """
        judge = _Judge(self._profile, list(blocked.values()))
        here = [each for each in brought if each.info_hash in there]
        # A long list takes a second: not where the leases are renewed.
        if found := await asyncio.to_thread(judge.of, work.want, here, [()] * len(here)):
            return found
        failed: dict[str, None] = {}
        seen = 0
        for query in work.want.queries:
            known = await self.search.ask(work, query)
            failed.update(dict.fromkeys(known.failed))
            seen += len(known.releases)
            if found := await asyncio.to_thread(judge.of, work.want, known.releases, known.links):
                return found
        if judge.last:
            return judge.last
        raise NothingSuitable(_told(seen, judge.refused), judge.refused, list(failed))


class _Judge:
    """Judges list after list, and remembers what would do if nothing else does."""

    def __init__(self, profile: Profile, blocked: Sequence[OfTrack]) -> None:
        self._profile = profile
        self._hard = [each.hard for each in blocked]
        self._soft = [each.soft for each in blocked]
        self.last: list[Candidate] = []
        self.refused: list[tuple[str, str]] = []

    def of(
        self, want: Want, releases: Sequence[Release], links: Sequence[tuple[str, ...]]
    ) -> list[Candidate]:
        """What may be tried of this list, in order."""
        found: list[Candidate] = []
        for wanted, kind in _of(want):
            chosen = select(wanted, releases, self._profile, blocked=self._hard, stalled=self._soft)
            found += _candidates(chosen.tried, links, kind)
            self.last += _candidates(chosen.last, links, kind)
            if kind == "album" or want.album is None:
                self._note(chosen.refused)
        return found

    def _note(self, refused: Sequence[tuple[str, str]]) -> None:
        known = dict(self.refused)
        new = [each for each in refused if each[0] not in known]
        self.refused = [*self.refused, *new][:_MOST_TOLD]


def _of(want: Want) -> Iterator[tuple[Wanted, Kind]]:
    if want.album is not None:
        yield want.album, "album"
    if want.track is not None:
        yield want.track, "track"


def _candidates(
    judged: Sequence[Judged], links: Sequence[tuple[str, ...]], kind: Kind
) -> list[Candidate]:
    return [Candidate(release=each.release, links=links[each.place], kind=kind) for each in judged]


def _told(seen: int, refused: Sequence[tuple[str, str]]) -> str:
    if not seen:
        return "no indexer lists it"
    told = f"nothing suitable among {seen} releases"
    if refused:
        title, why = refused[0]
        told += f"; the nearest, {title}: {why}"
    return told[:900]
