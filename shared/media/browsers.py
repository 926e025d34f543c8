"""Which formats browsers play: the catalog server sends every file as it is."""

from __future__ import annotations

# Of the codecs that `verify` passes, those that played and could be sought in Chromium 156 and
# Firefox 153, sent with the server's content type. ALAC, Windows Media and WAV with 64 bits a
# sample did not.
_PLAYED = frozenset({"mp3", "flac", "vorbis", "opus", "aac"})
_PLAYED_PCM = frozenset({"u8", "s16le", "s24le", "s32le", "f32le", "alaw", "mulaw"})

# Firefox plays no FLAC with more.
_FLAC_BITS = 24


def plays_in_browsers(codec: str, sample_bits: int | None) -> bool:
    """Whether browsers play files with the codec, as `verify` names it."""
    if codec == "flac" and sample_bits is not None and sample_bits > _FLAC_BITS:
        return False
    return codec in _PLAYED or codec.removeprefix("pcm_") in _PLAYED_PCM
