"""Text from elsewhere, made safe for a terminal and for the lines of a log."""

from __future__ import annotations

import unicodedata

# Control and format characters (among them ESC, the marks that turn the direction of writing, and
# those of no width), separators of lines and paragraphs, halves of surrogate pairs.
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
# The joiners, which some scripts and all emoji of several parts are written with.
_JOINERS = "\u200c\u200d"


def printable(text: str, *, keep: str = "") -> str:
    """`text` with every character that a terminal would obey, or hide, written as an escape.

    Those in `keep` stay.
    """
    if text.isprintable():
        return text
    return "".join(char if char in keep or not _obeyed(char) else _escaped(char) for char in text)


def _obeyed(char: str) -> bool:
    return char not in _JOINERS and unicodedata.category(char) in _UNSHOWN


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
