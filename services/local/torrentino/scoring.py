"""The score of a torrent for a ticket, and the mapping of its files to tracks.

The weights and thresholds are the real server's (reference, 1.1.3). What the reference does not
specify is our assumption:

* A search finds a torrent whose title has half of the description's words, or all of the expected
  artist's (the real server asks for an artist's discography when it has nothing good).
* A word is a run of letters and digits, case-insensitive; short words count too.
* A file's confidence for a track is the share of the title's words in its name (0.65) plus the
  match of the number at the start of its name and the disc in its folder (0.35); below 0.3 it is
  not mapped. Each file and each track is mapped once, in order of confidence.
* The mapping's quality is the mean confidence over all expected tracks, 0 for one without a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from services.local.torrentino.content import TorrentSpec

AUTO_APPROVE = 0.85
_ENRICHED_FROM = 0.4
_ENRICHED_MAX = 15
_HEALTHY_SEEDERS = 20
_CONFIDENCE_MIN = 0.3
_AUDIO = (".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus", ".wav", ".alac", ".ape", ".wv")
_FORMATS = ("flac", "mp3", "aac", "ogg", "opus", "alac", "ape", "wav")
_QUALITIES = (*_FORMATS, "320", "256", "v0", "24bit", "lossless")
_NUMBER = re.compile(r"\s*(?:(\d{1,2})[-.](?=\d))?(\d{1,3})(?!\d)")
_DISC = re.compile(r"(?:cd|dis[ck])\s*(\d{1,2})\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class FileMapping:
    """One entry of `file_mappings`."""

    path: str
    item_id: str
    confidence: float

    def json(self) -> dict[str, object]:
        return {
            "torrent_file_path": self.path,
            "ticket_item_id": self.item_id,
            "confidence": self.confidence,
        }


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A torrent that a search found; `enriched` if its file listing was fetched."""

    spec: TorrentSpec
    score: float
    mappings: tuple[FileMapping, ...]
    enriched: bool


@dataclass(frozen=True, kw_only=True)
class _Track:
    item_id: str
    words: frozenset[str]
    disc: int | None
    number: int | None


def ranked(
    torrents: Iterable[TorrentSpec], query_context: Mapping[str, object]
) -> Sequence[Scored]:
    """The torrents that a search for this `query_context` finds, best first."""
    wanted = _words(str(query_context.get("description", "")))
    artist = _words(_text(query_context, "artist"))
    found = [spec for spec in torrents if _found(_words(spec.title), wanted, artist)]
    tags = [str(tag) for tag in _list(query_context.get("tags"))]
    first = sorted(
        ((_base_score(spec, wanted, tags), spec) for spec in found),
        key=lambda pair: -pair[0],
    )
    tracks = _expected_tracks(query_context)
    scored = [
        _enriched(spec, score, tracks)
        if spec.fetchable and score >= _ENRICHED_FROM and place < _ENRICHED_MAX
        else Scored(spec=spec, score=round(score, 4), mappings=(), enriched=False)
        for place, (score, spec) in enumerate(first)
    ]
    return sorted(scored, key=lambda each: -each.score)


def is_audio(path: str) -> bool:
    """Whether the file's extension is one of audio."""
    return path.lower().endswith(_AUDIO)


def _found(title: frozenset[str], wanted: frozenset[str], artist: frozenset[str]) -> bool:
    return bool(title & wanted) and (
        2 * len(title & wanted) >= len(wanted) or (bool(artist) and artist <= title)
    )


def _base_score(spec: TorrentSpec, wanted: frozenset[str], tags: Sequence[str]) -> float:
    title = _words(spec.title)
    similarity = len(title & wanted) / len(wanted)
    health = min(spec.seeders / _HEALTHY_SEEDERS, 1.0)
    return 0.75 * similarity + 0.15 * _quality(title, tags) + 0.10 * health


def _quality(title: frozenset[str], tags: Sequence[str]) -> float:
    """0.5 without a quality tag, which is a tag that contains a quality word."""
    asked = {word for word in _QUALITIES if any(word in tag.casefold() for tag in tags)}
    if not asked:
        return 0.5
    conflicts = [word for word in _FORMATS if word in title and word not in asked]
    share = len(asked & title) / len(asked)
    return max(0.0, share - 0.2 * len(conflicts) * bool(asked & set(_FORMATS)))


def _enriched(spec: TorrentSpec, score: float, tracks: Sequence[_Track]) -> Scored:
    """The score including the files; the mappings include the spec's errors."""
    mappings = _mapped(spec, tracks)
    if tracks:
        quality = sum(each.confidence for each in mappings) / len(tracks)
        score = 0.6 * score + 0.4 * min(quality, 1.0)
    return Scored(spec=spec, score=round(score, 4), mappings=mappings, enriched=True)


def _mapped(spec: TorrentSpec, tracks: Sequence[_Track]) -> tuple[FileMapping, ...]:
    pairs = sorted(
        (
            (-confidence, place, file.path)
            for place, track in enumerate(tracks)
            for file in spec.files
            if file.path not in spec.mappings
            and is_audio(file.path)
            and (confidence := _confidence(file.path, track)) >= _CONFIDENCE_MIN
        ),
    )
    chosen: dict[str, FileMapping] = {}
    served: set[int] = set()
    for negative, place, path in pairs:
        if path not in chosen and place not in served:
            served.add(place)
            item_id = tracks[place].item_id
            chosen[path] = FileMapping(path=path, item_id=item_id, confidence=-negative)
    if tracks:
        chosen |= {
            path: FileMapping(path=path, item_id=item_id, confidence=confidence)
            for path, (item_id, confidence) in spec.mappings.items()
        }
    return tuple(chosen[file.path] for file in spec.files if file.path in chosen)


def _confidence(path: str, track: _Track) -> float:
    stem, folder = PurePosixPath(path).stem, str(PurePosixPath(path).parent)
    words = len(track.words & _words(stem)) / len(track.words) if track.words else 0.0
    return round(0.65 * words + 0.35 * _same_number(stem, folder, track), 4)


def _same_number(stem: str, folder: str, track: _Track) -> bool:
    named = _NUMBER.match(stem)
    if named is None or track.number is None or int(named[2]) != track.number:
        return False
    folders = _DISC.findall(folder)
    disc = named[1] or (folders[-1] if folders else None)
    return disc is None or track.disc is None or int(disc) == track.disc


def _expected_tracks(query_context: Mapping[str, object]) -> list[_Track]:
    expected = query_context.get("expected")
    if not isinstance(expected, Mapping):
        return []
    if expected.get("type") == "track":
        words = _words(str(expected.get("title", "")))
        return [_Track(item_id="track-1", words=words, disc=None, number=None)]
    tracks = [each for each in _list(expected.get("tracks")) if isinstance(each, Mapping)]
    return [
        _Track(
            item_id=f"track-{each.get('number')}",
            words=_words(str(each.get("title", ""))),
            disc=each.get("disc_number"),
            number=each.get("number"),
        )
        for each in tracks
    ]


def _text(query_context: Mapping[str, object], name: str) -> str:
    expected = query_context.get("expected")
    return str(expected.get(name) or "") if isinstance(expected, Mapping) else ""


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W_]+", text.casefold()))
