"""The table of formats: what is chosen, delivered and taken agrees with what can be placed."""

from __future__ import annotations

import pytest

from services.fetcher_writer.delivery.base import DeliveredFile
from services.fetcher_writer.delivery.candidates import audio_candidates, without_refused
from services.poller.file_choice import is_audio
from shared.choosing import vocabulary as words
from shared.choosing.choice import judge
from shared.choosing.model import Profile, Release, Wanted
from shared.media.formats import (
    ANYTHING,
    CONTAINERS,
    DEMUXERS,
    ENDINGS,
    PCM,
    WORDS,
    Accepted,
    is_lossless,
    plays_in_browsers,
)
from tests.unit.test_torrentino_client import always, client_of
from tests.unit.test_torrentino_search import candidate, found

REFUSE = Accepted(playable="refuse")
WANTED = Wanted(artist="Tove Alder", album="Glass Harbour", year=2011, tracks=10, seconds=2_400)
TITLE = "Tove Alder - Glass Harbour (2011) [{}]"
# Demuxers of ffmpeg that open other files, or whatever a file names.
OPENING = {"concat", "hls", "dash", "imf", "image2", "sdp", "rtsp", "webm_dash_manifest", "lavfi"}


def rules(title: str, accepted: Accepted = ANYTHING) -> set[str]:
    release = Release(title=title, size_bytes=255_000_000, seeders=5)
    [judged] = judge(WANTED, [release], Profile(accepted=accepted))
    return {refusal.rule for refusal in judged.refusals}


def test_no_demuxer_opens_other_files() -> None:
    assert not OPENING & set(DEMUXERS.split(","))
    assert len(set(DEMUXERS.split(","))) == len(DEMUXERS.split(","))


def test_what_plays_is_taken_in_its_container() -> None:
    """Each codec that browsers play is one of the row, and the server finds its ending."""
    for row in CONTAINERS:
        for codec in row.played:
            taken = PCM if codec.startswith("pcm_") else codec
            assert row.codecs[taken] in {"aac", "flac", "m4a", "mp3", "ogg", "opus", "wav"}
            assert plays_in_browsers(row.name, codec, 16)


def test_endings_agree_with_codecs() -> None:
    """An ending tells only what the codecs of its container allow: lossless, lossy, or neither."""
    for row in CONTAINERS:
        kept = {is_lossless("pcm_s16le" if c == PCM else c) for c in row.codecs}
        for ending, lossless in row.endings.items():
            if lossless is not None:
                assert lossless in kept, ending
    assert ENDINGS["mka"] is None


@pytest.mark.parametrize(
    ("accepted", "endings"),
    [
        (ANYTHING, {"wv": True, "dsf": True, "flac": True, "wma": True, "ofr": False}),
        (REFUSE, {"wv": False, "dsf": False, "mp2": False, "wma": False, "m4a": True}),
        (REFUSE, {"wav": True, "aiff": False, "mka": False, "mp4": True, "alac": False}),
        (Accepted(format="flac", playable="refuse"), {"wv": True, "wma": True, "mpc": False}),
        (Accepted(format="mp3", playable="refuse"), {"wv": True, "mpc": True, "ofr": False}),
    ],
)
def test_what_may_pass_by_its_ending(accepted: Accepted, endings: dict[str, bool]) -> None:
    assert {ending: accepted.ending(ending) for ending in endings} == endings


@pytest.mark.parametrize("word", ["FLAC", "APE", "WavPack", "WV", "TTA", "TAK", "DSD64", "AIFF"])
def test_a_lossless_release_is_chosen_whatever_its_format(word: str) -> None:
    assert rules(TITLE.format(word)) == set()


@pytest.mark.parametrize("word", ["OptimFROG", "OFR"])
def test_what_nothing_decodes_is_never_chosen(word: str) -> None:
    assert "format" in rules(TITLE.format(word))
    assert "format" not in rules(TITLE.format(f"{word} + FLAC"))


@pytest.mark.parametrize("word", ["APE", "WavPack", "ALAC", "TTA", "WMA 320", "DSD64", "Musepack"])
def test_what_browsers_do_not_play_is_not_chosen_with_refuse(word: str) -> None:
    """Where AUDIO_FORMAT makes something of it, it is."""
    title = TITLE.format(word)
    assert "format" in rules(title, REFUSE)
    assert "format" not in rules(title, Accepted(format="mp3", playable="refuse"))
    assert "format" not in rules(TITLE.format(f"{word} / MP3 320"), REFUSE)
    assert "format" not in rules(title)


def test_a_name_says_nothing_of_the_format() -> None:
    """An album that is called as a format is."""
    wanted = Wanted(artist="Tove Alder", album="Ape", year=2011, tracks=10, seconds=2_400)
    release = Release(title="Tove Alder - Ape (2011)", size_bytes=255_000_000, seeders=5)
    [judged] = judge(wanted, [release], Profile(accepted=REFUSE))
    assert "format" not in {refusal.rule for refusal in judged.refusals}


def test_titles_are_read_by_the_same_formats() -> None:
    """Each word that a title's quality is read from is in the table, but for three kinds."""
    about_quality = {"lossless", "tr24"}
    assert (words.LOSSLESS | words.LOSSY) - about_quality <= WORDS.keys()


@pytest.mark.parametrize(
    ("accepted", "count"), [(ANYTHING, 3), (REFUSE, 1), (Accepted(format="mp3"), 3)]
)
async def test_files_are_counted_that_may_pass(accepted: Accepted, count: int) -> None:
    """Until now a release of WavPack files had none, and was taken for a part of the album."""
    names = ("1.wv", "2.ape", "3.flac", "4.ofr", "cover.jpg")
    answer = found(candidate(files=[{"path": name, "size_bytes": 1} for name in names]))
    async with client_of(always(answer)) as client:
        client.accepted = accepted
        [release] = (await client.search("x")).releases
    assert release.audio_files == count


def test_only_what_is_decoded_is_ordered() -> None:
    """Torrentino's pipeline uses ffmpeg as well."""
    assert is_audio("A/01.wv")
    assert is_audio("A/01.dff")
    assert not is_audio("A/01.ofr")


def test_the_correction_of_a_hybrid_file_is_no_candidate() -> None:
    """ffprobe takes it for a WavPack file of the same length."""
    files = [DeliveredFile(name=name, size_bytes=1) for name in ("01 Song.wv", "01 Song.wvc")]
    assert [file.name for file in audio_candidates(files)] == ["01 Song.wv"]


def test_what_is_refused_is_not_collected() -> None:
    """Beside others; but what Torrentino has converted, whatever it was."""
    names = ("1.ape", "1.flac", "2.ape.converted", "cover.jpg")
    files = [DeliveredFile(name=name, size_bytes=1) for name in names]
    assert [file.name for file in without_refused(files, REFUSE)] == list(names[1:])
    assert without_refused(files, ANYTHING) == files
