"""The words in titles and folders that tell recordings apart, and those that do not."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words for the same recording: a bracket with only these is dropped.
NOISE = _words(
    "remaster remastered remasterd remasterizado remasterise master mastered bonus track "
    "hidden explicit uncensored album version original deluxe expanded edition anniversary digital "
    "digitally stereo hd hq flac mp3 ogg m4a aac opus alac ape wav wv web cd vinyl lossless lossy "
    "kbps kbit kb vbr cbr v0 v2 official audio video lyric lyrics the lp hz khz bit 24bit "
    "16bit 320kbps 256kbps 192kbps 128kbps rip eac log cue"
)
NUMBERS_OF_FILES = _words("16 24 44 48 88 96 176 192 441 882 128 160 224 256 320")

# Words for another recording than that of the plain title, by its normal form.
_MARKS_OF = {
    "live": "live concert концерт ライブ",
    "unplugged": "unplugged",
    "remix": "remix rmx remixed remixes mix mixes bootleg rework ремикс ремиксы リミックス",
    "dub": "dub",
    "edit": "edit edits",
    "extended": "extended",
    "instrumental": "instrumental instrumentals instrumentales instrumentaux instrumentale inst "
    "инструментал инструменталы インスト インストゥルメンタル 伴奏 纯音乐",
    "karaoke": "karaoke караоке カラオケ минус минуса минусовка минусовки playback",
    "a cappella": "acapella acapellas acappella acappellas cappella cappellas capella",
    "acoustic": "acoustic",
    "demo": "demo demos демо デモ",
    "reprise": "reprise",
    "alternate": "alternate alternative alt",
    "outtake": "outtake outtakes take takes",
    "rehearsal": "rehearsal rehearsals",
    "session": "session sessions",
    "single": "single",
    "cover": "cover tribute",
    "mono": "mono",
    "surround": "surround multichannel quadraphonic atmos",
    "clean": "clean censored",
    "orchestral": "orchestral",
    "commentary": "commentary commentaries",
    "rerecorded": "rerecorded",
    "altered": "nightcore slowed 8d",
}
MARKS = {word: mark for mark, words in _MARKS_OF.items() for word in words.split()}
_PHRASES = {
    "off vocal": "karaoke", "vocal off": "karaoke", "without vocals": "karaoke",
    "no vocals": "karaoke", "minus one": "karaoke", "backing track": "karaoke",
    "backing tracks": "karaoke", "sing along": "karaoke", "singalong": "karaoke",
    "5 1": "surround", "51": "surround", "7 1": "surround", "71": "surround",
    "re recorded": "rerecorded", "sped up": "altered",
}  # fmt: skip
# "(Taylor's Version)", folded: another recording by the owner of the name.
_OWN_VERSION = re.compile(r"(?:^| )(?!albums |years )\w{3,}s version$")

# Made of the song's own tape, so the length is the song's: a file that does not say so is not it.
OF_ITS_TAPE = frozenset(
    {"instrumental", "karaoke", "a cappella", "commentary", "clean", "surround"}
)
# Marks of another performance, which has other lengths.
PERFORMANCES = frozenset({"live", "unplugged", "acoustic", "demo", "session", "rehearsal"})

PART_WORDS = {
    "pt": "part", "part": "part", "parte": "part", "teil": "part", "partie": "part",
    "vol": "volume", "volume": "volume", "no": "number", "nr": "number", "number": "number",
    "chapter": "chapter", "act": "act", "op": "op", "movement": "movement", "часть": "part",
}  # fmt: skip
ROMAN = {
    "i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6", "vii": "7", "viii": "8",
    "ix": "9", "x": "10", "xi": "11", "xii": "12", "xiii": "13", "xiv": "14", "xv": "15",
    "xvi": "16", "xvii": "17", "xviii": "18", "xix": "19", "xx": "20",
}  # fmt: skip
WORDED = {
    "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13",
    "fourteen": "14", "fifteen": "15", "sixteen": "16", "seventeen": "17", "eighteen": "18",
    "nineteen": "19", "twenty": "20",
}  # fmt: skip


def marks_in(words: str) -> frozenset[str]:
    """The recordings that folded words name, in normal form."""
    found = {MARKS[word] for word in words.split() if word in MARKS}
    found |= {mark for phrase, mark in _PHRASES.items() if f" {phrase} " in f" {words} "}
    if _OWN_VERSION.search(words):
        found.add("rerecorded")
    return frozenset(found)


def unmarked(words: str) -> list[str]:
    """The folded words that are no part of a mark."""
    for phrase in _PHRASES:
        if phrase in words:
            words = f" {words} ".replace(f" {phrase} ", " ")
    return [word for word in words.split() if word not in MARKS]


def is_version(words: str) -> bool:
    """Whether folded words after a dash name a recording: they begin or end with its mark."""
    split = words.split()
    if split[0] in MARKS or split[-1] in MARKS or _OWN_VERSION.search(words):
        return True
    return any(
        words.startswith(phrase) or words.endswith(phrase)
        for phrase in _PHRASES
        if phrase[0].isalpha()
    )


def is_year(word: str) -> bool:
    """Whether it is a year of this century or the last."""
    return len(word) == 4 and word.isdecimal() and word[:2] in {"19", "20"}


def says_nothing(word: str) -> bool:
    """Whether the word is of an edition or of a format, not of a recording."""
    return word in NOISE or word in NUMBERS_OF_FILES or is_year(word)
