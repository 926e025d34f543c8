"""Torrentino's search: what indexers list."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.errors import DependencyDown, OutcomeUnknown
from shared.media.extensions import extension_of
from shared.media.formats import Accepted
from shared.redaction import redact
from shared.torrentino.answers import Answer
from shared.torrentino.http import Http, object_of
from shared.torrentino.model import integer_of, mappings_of
from shared.torrentino.torrent import info_hash_of

# Jackett asks every indexer, and repeats what fails.
_PATIENCE_S = 75.0
_MOST_RELEASES = 2000
_MAX_TITLE_CHARS = 1000
_MAX_LINK_CHARS = 8000


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A release as the indexers list it. The links may carry an indexer's key."""

    title: str
    # 0: not known.
    size_bytes: int
    # Of its best single source: Torrentino's own number adds those of several indexers up.
    seeders: int
    # In small letters; empty: the indexer does not tell it.
    info_hash: str
    # Those in a format that may be placed; None: not known.
    audio_files: int | None
    magnet_uri: str | None = field(repr=False)
    torrent_url: str | None = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search gave. `failed`: the indexers that could not be asked, so it may lack some."""

    releases: tuple[Listed, ...]
    failed: tuple[str, ...]


class SearchCalls:
    """What can be found."""

    http: Http
    accepted: Accepted

    async def search(self, query: str) -> Found:
        """Ask every indexer; at most 2,000 releases, those without a link left out.

        Raises:
            DependencyDown: Torrentino does not answer, or (`searcher`) its indexers do not.
            Misconfigured: as every call.
        """
        # Its cache knows no private releases, and hides that an indexer is away.
        asked = {"query": query, "categories": ["audio", "music"], "mode": "external_only"}
        body = json.dumps(asked).encode("ascii")
        try:
            answer = await self.http.effect(
                "POST", "/search", body=body, own={500, 503}, patience_s=_PATIENCE_S
            )
        except OutcomeUnknown as unknown:
            raise DependencyDown("torrentino", str(unknown)) from unknown
        if answer.status != 200:
            raise _away(answer)
        found = object_of(answer, effect=False)
        errors = found.get("indexer_errors")
        failed = tuple(map(redact, errors)) if isinstance(errors, dict) else ()
        listed = (
            _listed(each, self.accepted)
            for each in mappings_of(found.get("candidates"))[:_MOST_RELEASES]
        )
        return Found(releases=tuple(each for each in listed if each is not None), failed=failed)

    async def searches(self) -> bool:
        """Whether a searcher is configured at Torrentino; it may be away all the same."""
        answer = await self.http.read("/searcher/status", patience_s=_PATIENCE_S)
        return object_of(answer, effect=False).get("configured") is True


def _away(answer: Answer) -> DependencyDown:
    return DependencyDown("searcher", f"Torrentino's indexers do not answer: {answer.text}")


def _listed(candidate: Mapping[str, object], accepted: Accepted) -> Listed | None:
    title = candidate.get("title")
    sources = mappings_of(candidate.get("sources"))
    # The best one first; a link of a worse one is better than none.
    sources.sort(key=lambda source: -(integer_of(source.get("seeders")) or 0))
    magnet = _link([source.get("magnet_uri") for source in sources], "magnet:")
    url = _link([source.get("torrent_url") for source in sources], "http")
    if not isinstance(title, str) or not title.strip() or not (magnet or url):
        return None
    return Listed(
        title=redact(title).strip()[:_MAX_TITLE_CHARS],
        size_bytes=integer_of(candidate.get("size_bytes")) or 0,
        seeders=min(integer_of(sources[0].get("seeders")) or 0, 2**31 - 1),
        info_hash=info_hash_of(candidate.get("info_hash")) or "",
        audio_files=_audio_files(candidate.get("files"), accepted),
        magnet_uri=magnet,
        torrent_url=url,
    )


def _link(links: list[object], begins: str) -> str | None:
    for link in links:
        if isinstance(link, str) and link.startswith(begins) and len(link) <= _MAX_LINK_CHARS:
            return link.replace("\0", "")
    return None


def _audio_files(files: object, accepted: Accepted) -> int | None:
    paths = [str(each.get("path")) for each in mappings_of(files)]
    if not paths:
        return None
    return sum(accepted.ending(extension_of(path)) for path in paths)
