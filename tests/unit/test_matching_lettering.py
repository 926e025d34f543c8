"""Titles of CUE sheets: right letters or none, whatever program wrote them."""

from __future__ import annotations

from itertools import pairwise

import pytest

from shared.matching.cue import parse
from shared.matching.lettering import read

CZECH = [
    *("Žlutá ponorka", "Ať žijí duchové", "Dívka s perlami ve vlasech", "Želva", "Černý muž"),
    *("Příběh", "Ještě jednou", "Šípková Růženka", "Sluneční hrob", "Kdybys měla čas"),
]
GERMAN = [
    *("Für Elise", "Über den Wolken", "Männer", "Die Würfel sind gefallen", "Schöne Grüße"),
    *("Müßiggang", "Straße nach Süden", "Herz über Kopf", "Fußball", "Mädchen"),
]
FRENCH = [
    *("Là-bas", "Été indien", "Ne me quitte pas", "Déjà vu", "Français", "L'été à la mer"),
    *("Où est passé l'ennui", "Être une femme", "Noël", "Garçon", "Hôtel"),
]
RUSSIAN = [
    *("Группа крови", "Ёлка", "Звезда по имени Солнце", "Пачка сигарет", "Кукушка"),
    *("Последний герой", "Спокойная ночь", "Перемен", "Восьмиклассница", "Мама, мы все больны"),
]
GREEK = [
    *("Ζωή", "Καλημέρα", "Το τραγούδι", "Νύχτα", "Μια φορά", "Άνοιξη"),  # noqa: RUF001
    *("Δρόμος", "Καρδιά μου", "Όλα καλά"),
]
HEBREW = [
    *("שלום", "אהבה", "ירושלים של זהב", "לילה טוב", "בוקר", "השיר שלנו", "ים", "שמש", "ילדה"),
    *("חלום", "הבית"),
]
TURKISH = [
    *("Şarkı", "Gül", "İstanbul", "Aşk", "Güneş", "Yağmur", "Kış güneşi"),  # noqa: RUF001
    *("Gözlerin", "Çocuk"),
]
JAPANESE = ["上海", "東京", "桜", "夜に駆ける", "ハルジオン", "群青", "優しい彗星", "もう少しだけ"]
CHINESE = ["月亮代表我的心", "甜蜜蜜", "小城故事", "漫步人生路", "我只在乎你", "千言万语", "夜来香"]
TAIWANESE = ["月亮代表我的心", "甜蜜蜜", "小城故事", "千言萬語", "北國之春", "獨上西樓", "夜來香"]
KOREAN = [
    "사랑",
    "봄날",
    "너의 의미",
    "좋은 날",
    "밤편지",
    "가을 아침",
    "나비",
    "하루하루",
    "거짓말",
]
ENGLISH = ["It\u2019s OK", "Café", "Song \u2013 Part One", "“Quoted”", "Plain", "Don\u2019t"]

ALBUMS = [
    (CZECH, "cp1250"), (CZECH, "cp852"), (GERMAN, "cp1252"),
    (GERMAN, "cp850"), (FRENCH, "cp1252"), (FRENCH, "cp850"), (RUSSIAN, "cp1251"),
    (RUSSIAN, "koi8_r"), (RUSSIAN, "cp866"), (GREEK, "cp1253"), (GREEK, "iso8859_7"),
    (HEBREW, "cp1255"), (TURKISH, "cp1254"), (JAPANESE, "cp932"), (CHINESE, "cp936"),
    (TAIWANESE, "cp950"), (KOREAN, "cp949"), (ENGLISH, "cp1252"),
]  # fmt: skip
NAMES = [f"{titles[0]} {encoding}" for titles, encoding in ALBUMS]


def sheet(titles: list[str]) -> str:
    lines = ['FILE "CDImage.wav" WAVE']
    for number, title in enumerate(titles, start=1):
        lines += [f"TRACK {number:02d} AUDIO", f'TITLE "{title}"', f"INDEX 01 {number:02d}:00:00"]
    return "\n".join(lines)


def titles_of(data: bytes) -> list[str | None]:
    return [track.title for track in parse(data).files[0].tracks]


@pytest.mark.parametrize(("titles", "encoding"), ALBUMS, ids=NAMES)
def test_an_album_is_read(titles: list[str], encoding: str) -> None:
    """The titles of a whole album tell their encoding."""
    assert titles_of(sheet(titles).encode(encoding)) == titles


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16", "utf-8", "utf-32"])
def test_unicode_is_read_with_and_without_a_mark(encoding: str) -> None:
    """UTF-16 shows by the zeros in its ASCII characters."""
    titles = [*RUSSIAN, *JAPANESE, *FRENCH]
    assert titles_of(sheet(titles).encode(encoding)) == titles


@pytest.mark.parametrize(("titles", "encoding"), ALBUMS, ids=NAMES)
def test_wrong_letters_are_never_read(titles: list[str], encoding: str) -> None:
    """A title or two may be too few to tell the encoding: then there is no title."""
    few = [[title] for title in titles] + [list(pair) for pair in pairwise(titles)]
    for some in few:
        found = read([title.encode(encoding) for title in some])
        assert all(one in {title, None} for one, title in zip(found, some, strict=True)), found


@pytest.mark.parametrize("case", [str.lower, str.upper])
@pytest.mark.parametrize("encoding", ["cp1251", "koi8_r", "cp866"])
def test_letters_of_one_case_may_be_another_encoding_s(case: type[str], encoding: str) -> None:
    """KOI8-R has small letters where cp1251 has capitals: all in one case, neither is sure."""
    titles = [case(title) for title in RUSSIAN]
    found = read([title.encode(encoding) for title in titles])
    assert all(one in {title, None} for one, title in zip(found, titles, strict=True)), found


@pytest.mark.parametrize(
    ("titles", "encoding"), [(RUSSIAN, "cp1251"), (JAPANESE, "cp932"), (GREEK, "cp1253")]
)
def test_letters_that_a_program_took_for_western_ones(titles: list[str], encoding: str) -> None:
    """ "Ãðóïïà" in UTF-8 is "Группа" that was read as cp1252; "FÃ¼r" is UTF-8 that was."""
    for original in (encoding, "utf-8"):
        western = [
            "".join(_as_western(byte) for byte in title.encode(original)) for title in titles
        ]
        assert read([title.encode() for title in western]) == titles


def _as_western(byte: int) -> str:
    try:
        return bytes([byte]).decode("cp1252")
    except UnicodeDecodeError:
        return chr(byte)


@pytest.mark.parametrize("title", ["F?r Elise", "????? ?????", "?lka", "Stra\ufffde", "??"])
def test_letters_that_were_lost_are_no_title(title: str) -> None:
    """A program without the letters writes question marks."""
    assert titles_of(sheet([title, "Who?", "What??", "Plain"]).encode()) == [
        None, "Who?", "What??", "Plain",
    ]  # fmt: skip


def test_a_text_that_is_not_utf_8_leaves_the_others() -> None:
    """A sheet that two programs have written: most is UTF-8, and the rest is not sure."""
    raw = [b"Caf\xe9", "Für".encode(), "Über".encode(), b"Plain"]
    assert read(raw) == [None, "Für", "Über", "Plain"]


def test_names_of_the_world_in_utf_8_stay() -> None:
    """What is in UTF-8 is never repaired if it is some language's."""
    titles = ["Trăng", "Mưa", "Sigur Rós", "MØ", "Björk & Ñandú", "Þursaflokkurinn", "ภาษา", "नमस्ते"]
    for some in [titles, *([title] for title in titles)]:
        assert read([title.encode() for title in some]) == some
