"""The formats that are taken: the one table that choosing, delivery, verification and docs use.

A row is a container as ffmpeg opens it, with the codecs that are taken in it, the endings of such
files' names, and what browsers play of it. What no row has is never chosen, nor passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

AudioFormat = Literal["ogg_vorbis", "opus", "mp3", "flac", "aac"]
Playable = Literal["convert", "refuse"]

# Stands for each codec of plain samples: pcm_s16le, pcm_f32be and so on.
PCM = "pcm"
# WavPack that is lossy by itself, which ffprobe does not tell.
HYBRID = "wavpack_hybrid"


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container.

    `name` is ours, `probed` ffprobe's (empty: see `shared.media.variants`), `demuxer` the name on
    ffmpeg's whitelist. `codecs` gives the ending of the file for each codec that is taken.
    `endings` are those of the names of such files, and whether what they hold is lossless; None: it
    may be either.
    """

    name: str
    probed: str
    demuxer: str
    codecs: Mapping[str, str] = field(hash=False)
    endings: Mapping[str, bool | None] = field(hash=False)
    # What browsers play, sent as audio/ogg, and the catalog server finds; tested in both browsers.
    played: frozenset[str] = frozenset()
    # Whether the length that ffprobe tells is stated by the file; otherwise it is an estimate.
    states_length: bool = True


def _one(*names: str, lossless: bool | None) -> dict[str, bool | None]:
    return dict.fromkeys(names, lossless)


def _all(codecs: Iterable[str], ending: str) -> dict[str, str]:
    return dict.fromkeys(codecs, ending)


_WMA = ("wmav1", "wmav2", "wmapro", "wmalossless", "wmavoice")
_SURROUND = ("ac3", "eac3", "dts")
_DSD = ("dsd_lsbf", "dsd_msbf", "dsd_lsbf_planar", "dsd_msbf_planar")
_IN_MATROSKA = (
    *("flac", "alac", "wavpack", "tta", PCM, "truehd", "mlp", "mp3", "mp2", "aac", "vorbis"),
    *("opus", *_SURROUND),
)
# Of samples, what browsers play in a WAV file. Those with 64 bits are not played.
_PLAYED_PCM = frozenset(
    f"pcm_{form}" for form in ("u8", "s16le", "s24le", "s32le", "f32le", "alaw", "mulaw")
)

# Each demuxer reads the one file only: with all of ffmpeg's, a text file could be a playlist, and
# make it open other files of this machine. Ogg FLAC stays .ogg: players take it.
CONTAINERS: tuple[Container, ...] = (
    Container(
        name="mp3",
        probed="mp3",
        demuxer="mp3",
        codecs={"mp3": "mp3", "mp2": "mp2"},
        endings=_one("mp3", "mp2", lossless=False),
        played=frozenset({"mp3"}),
    ),
    Container(
        name="flac",
        probed="flac",
        demuxer="flac",
        codecs={"flac": "flac"},
        endings=_one("flac", lossless=True),
        played=frozenset({"flac"}),
    ),
    Container(
        name="ogg",
        probed="ogg",
        demuxer="ogg",
        codecs={"vorbis": "ogg", "opus": "opus", "flac": "ogg"},
        endings=_one("ogg", "oga", "opus", lossless=False),
        played=frozenset({"vorbis", "opus", "flac"}),
    ),
    Container(
        name="mp4",
        probed="mov,mp4,m4a,3gp,3g2,mj2",
        demuxer="mov",
        codecs=_all(("aac", "alac", "flac", "opus", "mp3", "ac3", "eac3", PCM), "m4a"),
        endings=_one("alac", lossless=True) | _one("m4a", "m4b", lossless=None),
        played=frozenset({"aac", "flac", "opus", "mp3"}),
    ),
    Container(
        name="adts",
        probed="aac",
        demuxer="aac",
        codecs={"aac": "aac"},
        endings=_one("aac", lossless=False),
        played=frozenset({"aac"}),
        states_length=False,
    ),
    Container(
        name="wav",
        probed="wav",
        demuxer="wav",
        codecs=_all((PCM, "adpcm_ms", "adpcm_ima_wav", "mp3", *_SURROUND), "wav"),
        endings=_one("wav", "wave", lossless=True),
        played=_PLAYED_PCM | {"mp3"},
    ),
    # The same for more than 4 GiB, which ffprobe calls so as well, and Firefox does not play.
    Container(
        name="rf64",
        probed="",
        demuxer="wav",
        codecs={PCM: "wav"},
        endings=_one("rf64", lossless=True),
    ),
    # DTS and AC-3 as the samples of a WAV file.
    Container(
        name="spdif",
        probed="spdif",
        demuxer="spdif",
        codecs=_all(_SURROUND, "wav"),
        endings={},
        states_length=False,
    ),
    Container(
        name="w64",
        probed="w64",
        demuxer="w64",
        codecs={PCM: "w64"},
        endings=_one("w64", lossless=True),
    ),
    Container(
        name="aiff",
        probed="aiff",
        demuxer="aiff",
        codecs={PCM: "aiff"},
        endings=_one("aif", "aiff", "aifc", lossless=True),
    ),
    Container(
        name="caf",
        probed="caf",
        demuxer="caf",
        codecs=_all((PCM, "alac", "flac", "aac", "opus", "mp3"), "caf"),
        endings=_one("caf", lossless=None),
    ),
    Container(
        name="matroska",
        probed="matroska,webm",
        demuxer="matroska",
        codecs=_all(_IN_MATROSKA, "mka"),
        endings=_one("mka", lossless=None),
    ),
    Container(
        name="asf",
        probed="asf",
        demuxer="asf",
        codecs=_all(_WMA, "wma"),
        endings=_one("wma", lossless=False),
    ),
    Container(
        name="wavpack",
        probed="wv",
        demuxer="wv",
        codecs={"wavpack": "wv", HYBRID: "wv"},
        endings=_one("wv", lossless=True),
    ),
    Container(
        name="ape",
        probed="ape",
        demuxer="ape",
        codecs={"ape": "ape"},
        endings=_one("ape", lossless=True),
    ),
    Container(
        name="tta",
        probed="tta",
        demuxer="tta",
        codecs={"tta": "tta"},
        endings=_one("tta", lossless=True),
    ),
    Container(
        name="tak",
        probed="tak",
        demuxer="tak",
        codecs={"tak": "tak"},
        endings=_one("tak", lossless=True),
    ),
    Container(
        name="shorten",
        probed="shn",
        demuxer="shn",
        codecs={"shorten": "shn"},
        endings=_one("shn", lossless=True),
        states_length=False,
    ),
    Container(
        name="dsf",
        probed="dsf",
        demuxer="dsf",
        codecs=_all(_DSD, "dsf"),
        endings=_one("dsf", lossless=True),
    ),
    Container(
        name="dsdiff",
        probed="iff",
        demuxer="iff",
        codecs=_all((*_DSD, "dst"), "dff"),
        endings=_one("dff", lossless=True),
    ),
    Container(
        name="mpc7",
        probed="mpc",
        demuxer="mpc",
        codecs={"musepack7": "mpc"},
        endings=_one("mpc", "mp+", "mpp", lossless=False),
    ),
    Container(
        name="mpc8",
        probed="mpc8",
        demuxer="mpc8",
        codecs={"musepack8": "mpc"},
        endings={},
        # Rounded down to a packet of 1.7 s.
        states_length=False,
    ),
    Container(
        name="ac3",
        probed="ac3",
        demuxer="ac3",
        codecs={"ac3": "ac3"},
        endings=_one("ac3", lossless=False),
        states_length=False,
    ),
    Container(
        name="eac3",
        probed="eac3",
        demuxer="eac3",
        codecs={"eac3": "eac3"},
        endings=_one("eac3", "ec3", lossless=False),
        states_length=False,
    ),
    Container(
        name="dts",
        probed="dts",
        demuxer="dts",
        codecs={"dts": "dts"},
        endings=_one("dts", lossless=False),
        states_length=False,
    ),
)

DEMUXERS = ",".join(dict.fromkeys(each.demuxer for each in CONTAINERS))
ENDINGS: Mapping[str, bool | None] = {
    ending: lossless for each in CONTAINERS for ending, lossless in each.endings.items()
}

_LOSSLESS = frozenset(
    {*_DSD, "alac", "ape", "dst", "flac", "mlp", "shorten", "tak", "truehd", "tta", "wavpack"}
    | {"wmalossless"}
)
BY_NAME = {each.name: each for each in CONTAINERS}
_BY_PROBED = {each.probed: each for each in CONTAINERS}
# Firefox plays no FLAC with more.
_PLAYED_FLAC_BITS = 24

# What titles of releases say of a format, and the endings of such a release's files. What nothing
# here decodes has none.
WORDS: Mapping[str, tuple[str, ...]] = {
    **{word: (word,) for word in ENDINGS},
    "wavpack": ("wv",),
    "monkeys": ("ape",),
    "musepack": ("mpc",),
    "shorten": ("shn",),
    **dict.fromkeys(("dsd", "dsd64", "dsd128", "dsd256", "dsd512"), ("dsf", "dff")),
    "vorbis": ("ogg",),
    "mqa": ("flac",),
    "optimfrog": (),
    "ofr": (),
}


def of_probed(name: str) -> Container | None:
    """The container that ffprobe names so, if it is taken."""
    return _BY_PROBED.get(name)


def is_lossless(codec: str) -> bool:
    """Whether the codec, as `verify` names it, keeps every sample."""
    return codec in _LOSSLESS or codec.startswith("pcm_")


def is_dsd(codec: str) -> bool:
    """Whether it has samples of one bit, so that its rate tells nothing of what is heard."""
    return codec in _DSD or codec == "dst"


def plays_in_browsers(container: str, codec: str, sample_bits: int | None) -> bool:
    """Whether browsers play it, as `verify` names it, behind the catalog server."""
    if codec == "flac" and sample_bits is not None and sample_bits > _PLAYED_FLAC_BITS:
        return False
    return codec in BY_NAME[container].played


def _named_by(ending: str, row: Container) -> Iterable[str]:
    """The codecs that a file of the container may have if its name ends so."""
    return (ending,) if ending in row.codecs else row.codecs


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """What may be placed in the end, by AUDIO_FORMAT and AUDIO_PLAYABLE, before a file is here.

    It is generous where a name does not tell: the content decides later.
    """

    format: Literal["original"] | AudioFormat = "original"
    playable: Playable = "convert"

    def ending(self, ending: str) -> bool:
        """Whether a file whose name ends so may pass; False for what is no format of the table."""
        return any(
            self._codec(row, codec)
            for row in CONTAINERS
            if ending in row.endings or (ending == "mp4" and row.name == "mp4")
            for codec in _named_by(ending, row)
        )

    def word(self, word: str) -> bool | None:
        """Whether files may pass that a title calls so; None: it is not of a format."""
        endings = WORDS.get(word)
        return None if endings is None else any(map(self.ending, endings))

    def decoded(self, word: str) -> bool:
        """Whether what a title calls so is decoded, whatever AUDIO_PLAYABLE says."""
        return bool(WORDS.get(word))

    def _codec(self, row: Container, codec: str) -> bool:
        if self.playable == "convert" or codec in row.played:
            return True
        if codec == PCM and row.played & _PLAYED_PCM:
            return True
        match self.format:
            case "original":
                return False
            case "flac":
                return codec == PCM or is_lossless(codec)
            case _:
                return True


# What the defaults of both settings accept: every format of the table.
ANYTHING = Accepted()
