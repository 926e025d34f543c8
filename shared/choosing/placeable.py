"""Whether what a release's title says of its format can be placed at all."""

from __future__ import annotations

from collections.abc import Iterable

from shared.choosing.title import numbered, read
from shared.media.formats import Accepted


def refused_formats(title: str, names: Iterable[str], accepted: Accepted) -> tuple[str, ...]:
    """The formats that the title says, if none of them may be placed; empty: one may.

    `names` are those of the wanted artist, album or track, whose words say nothing of the format.
    A title that says no format may be of any.
    """
    own = {word for name in names for word in numbered(name)}
    said = {word: accepted.word(word) for word in read(title).all_words - own}
    known = sorted(word for word, may_be in said.items() if may_be is not None)
    return () if any(said[word] for word in known) else tuple(known)
