"""F20: texts of strangers take bounded time, however they are made."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from shared.choosing import title
from shared.choosing.model import Wanted
from shared.choosing.naming import name_of
from shared.choosing.queries import for_album
from shared.matching import cue, names, titles
from shared.media.decode import serious_lines
from shared.redaction import redact

# What patterns repeat or look for; a row of each makes a careless pattern try every division.
_UNITS = (
    *(" ", "\t", "a", "1", "0", "é", "-", "~", "_", "&", "/", "=", "#", "(", ")", "[", "|", "+"),
    *(
        "a ",
        "1 ",
        "- ",
        "a.",
        "1.",
        "[a",
        "x-",
        "/a",
        "2001-",
        "cd0",
        "20",
        "://",
        "the, ",
        "\u2014",
    ),
    *("feat ", "remaster ", "track", "apikey", "apikey=", "tr=", "%26", '"', "Bearer "),
    *("[mjpeg @ ", "all 1 candidates failed to add ", "api error: "),
)
_LINES = [begin + unit * (5_000 // len(unit)) + "!" for unit in _UNITS for begin in ("", "FILE a")]


def _cue(text: str) -> None:
    try:
        cue.parse(text.encode())
    except ValueError:
        return  # it is no sheet


def _album(text: str) -> None:
    # As long as the API takes a name.
    wanted = Wanted(artist=text[:1000], album=text[:1000], year=None, tracks=9, seconds=1.0)
    for_album(wanted)
    name_of(wanted)


@pytest.mark.parametrize(
    "read",
    [
        _cue,
        _album,
        lambda text: names.read_names([text, f"{text}/01 {text}.flac"], ["x"]),
        lambda text: titles.is_code(titles.title_of(text)),
        title.read,
        redact,
        serious_lines,
    ],
    ids=["cue sheet", "album", "file names", "track title", "release title", "redact", "ffmpeg"],
)
def test_the_worst_line_is_read_at_once(read: Callable[[str], object]) -> None:
    """No division of a row of blanks, letters, digits or brackets takes long."""
    slowest = (0.0, "")
    for line in _LINES:
        before = time.process_time()
        read(line)
        slowest = max(slowest, (time.process_time() - before, f"{line[:20]!r} … {line[-3:]!r}"))
    assert slowest[0] < 0.2, slowest


def test_a_sheet_with_a_long_line_is_refused() -> None:
    """Left out, a FILE would give its tracks to the file before it; a remark may be long."""
    sheet = 'FILE "a.flac" WAVE\nTRACK 01 AUDIO\nINDEX 01 00:00:00\n'
    assert cue.parse(f"REM COMMENT {'x' * 5000}\n{sheet}".encode()).files[0].name == "a.flac"
    with pytest.raises(ValueError, match="a line of 5005 characters"):
        cue.parse(f"{sheet}FILE {'b' * 5000}\n".encode())


@pytest.mark.parametrize("text", ["", " ", "[]", "( )", "-", "\u2014", "_"])
def test_a_title_without_a_word_is_read(text: str) -> None:
    """Indexers list such titles as well: they name nothing, and stop no choice."""
    assert title.read(text).years == frozenset()
