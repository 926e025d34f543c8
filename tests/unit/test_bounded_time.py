"""F20: texts of strangers take bounded time, however they are made."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from shared.choosing import title
from shared.choosing.model import Wanted
from shared.choosing.naming import name_of
from shared.choosing.queries import for_album
from shared.matching import cue, cue_lines, names, titles
from shared.matching.model import Offered
from shared.media.complaints import serious_lines
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
    *("INDEX 01 ", "00:", "01 0", "TRACK ", "TITLE ", "\0", "é ", "éa", "\u201e", "a\u2014"),
)
_LINES = [begin + unit * (5_000 // len(unit)) + "!" for unit in _UNITS for begin in ("", "FILE a")]


def _cue(text: str) -> None:
    for line in (text, text[:900], f'FILE "a" WAVE\nTRACK 01 AUDIO\nTITLE {text[:900]}'):
        _sheet(line.encode())
        _sheet(line.encode("cp1252", "replace"))


def _sheet(data: bytes) -> None:
    try:
        cue.parse(data)
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


# Bytes of titles in encodings that nothing names, and of those that are none.
_LETTERS = (
    *("é".encode(), "é".encode("cp1252"), "é ".encode("cp1252"), "a\u2014".encode("cp1252")),
    *("Группа крови ".encode("cp1251"), "夜に".encode("cp932"), "Ãðóïïà ".encode(), b"\x81"),
    *("\u201e".encode("cp1252"), "שלום ".encode("cp1255"), bytes(range(0x80, 0x100)), b"\0 "),
)


@pytest.mark.parametrize("letters", _LETTERS, ids=[repr(each[:8]) for each in _LETTERS])
def test_the_largest_sheet_is_read_at_once(letters: bytes) -> None:
    """As many tracks as are read, with the longest titles, all different."""
    text = letters * (600 // len(letters))
    lines = [b'FILE "a" WAVE']
    for number in range(1, cue_lines.MAX_TRACKS + 1):
        lines += [b"TRACK %02d AUDIO" % (number % 100), b'TITLE "%d %s"' % (number, text)]
        lines += [b'PERFORMER "%s %d"' % (text, number), b"INDEX 01 %d:00:00" % number]
    before = time.process_time()
    _sheet(b"\n".join(lines)[: cue_lines.MAX_BYTES])
    assert time.process_time() - before < 1.0


def test_a_sheet_of_many_files_finds_them_at_once() -> None:
    """200 files of a sheet, among a thousand in its folder."""
    names = [f"{number:04d} {'x' * 200}.wav" for number in range(1000)]
    beside = [Offered(name=f"A/{name}", size_bytes=1, duration_s=9e9) for name in names]
    tracks = "TRACK {} AUDIO\nINDEX 01 0:0:0\nTRACK {} AUDIO\nINDEX 01 1:0:0\n"
    lines = [
        f'FILE "{name}" WAVE\n' + tracks.format(2 * place % 1000, 2 * place % 1000 + 1)
        for place, name in enumerate(names[-100:])
    ]
    sheet = cue.parse("".join(lines).encode())
    before = time.process_time()
    assert len(cue.parts(sheet, beside)) == 200
    assert time.process_time() - before < 0.1


@pytest.mark.parametrize("text", ["", " ", "[]", "( )", "-", "\u2014", "_"])
def test_a_title_without_a_word_is_read(text: str) -> None:
    """Indexers list such titles as well: they name nothing, and stop no choice."""
    assert title.read(text).years == frozenset()
