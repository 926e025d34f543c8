"""Decoys: wrong releases that a search lists beside the right one, with more seeders."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from services.local.torrentino.content import TorrentFile, TorrentSpec
from services.local.torrentino.scoring import is_audio

_VOLUME = re.compile(r"\b(vol(?:ume)?\.?\s*)(\d+)", re.IGNORECASE)
_MORE_SEEDERS = 10


def decoys_of(spec: TorrentSpec, audio: Sequence[Path], *, dead: bool) -> list[TorrentSpec]:
    """The decoys of one release; `audio` is the other audio that can be put into them.

    Their titles have all words of its title, their files have its files' names, and no audio file
    has the right bytes. A dead one claims the same content.
    """
    made = []
    for place, (kind, titled) in enumerate(_KINDS.items(), start=1):
        files = _other_audio(spec.files, audio, shift=place)
        if files is not None:
            made.append(_decoy(spec, files, kind=kind, title=titled(spec.title), place=place))
    if not dead:
        return made
    seed = _decoy(
        spec, spec.files, kind="24bit", title=f"{spec.title} [24bit]", place=len(_KINDS) + 1
    )
    return [*made, replace(seed, dead=True)]


def _decoy(
    spec: TorrentSpec, files: Iterable[TorrentFile], *, kind: str, title: str, place: int
) -> TorrentSpec:
    renamed = tuple(
        TorrentFile(path=_renamed(file.path, kind), source=file.source) for file in files
    )
    return replace(
        spec,
        title=title,
        files=renamed,
        seeders=spec.seeders + _MORE_SEEDERS * place,
        mappings={},
    )


def _renamed(path: str, kind: str) -> str:
    """The path below another folder; a file without a folder gets another name."""
    root, slash, inner = path.partition("/")
    if slash:
        return f"{root} ({kind})/{inner}"
    return f"{PurePosixPath(path).stem} ({kind}){PurePosixPath(path).suffix}"


def _other_audio(
    files: Sequence[TorrentFile], audio: Sequence[Path], *, shift: int
) -> list[TorrentFile] | None:
    """The files, each track with other audio; None if there is no other audio."""
    own = [file.source for file in files if is_audio(file.path)]
    turned = 1 + (shift - 1) % max(len(own) - 1, 1)
    sources = dict(zip(own, own[turned:] + own[:turned], strict=True))
    made = []
    for file in files:
        source = sources.get(file.source, file.source)
        if is_audio(file.path) and source == file.source:
            others = [path for path in audio if path != file.source]
            if not others:
                return None
            source = others[shift % len(others)]
        made.append(TorrentFile(path=file.path, source=source))
    return made


def _marked(mark: str) -> Callable[[str], str]:
    """Adds a mark to a title, before the part in square brackets."""

    def titled(title: str) -> str:
        name, bracket, rest = title.partition("[")
        return f"{name.rstrip()} {mark} {bracket}{rest}".rstrip()

    return titled


def _other_volume(title: str) -> str:
    if _VOLUME.search(title):
        return _VOLUME.sub(lambda found: f"{found[1]}{int(found[2]) + 1}", title, count=1)
    return _marked("Vol. 2")(title)


_KINDS: Mapping[str, Callable[[str], str]] = {
    "live": _marked("(Live)"),
    "tribute": lambda title: f"A Tribute to {title}",
    "instrumental": _marked("(Instrumental)"),
    "karaoke": _marked("(Karaoke Version)"),
    "volume": _other_volume,
}
