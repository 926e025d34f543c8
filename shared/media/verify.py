"""Whether a file is the whole audio of a track: ffprobe accepts half a song, so all is decoded."""

from __future__ import annotations

import asyncio
import hashlib
import stat
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from shared.errors import AttemptFailed, ErrorType
from shared.lengths import tolerance_of
from shared.media.complaints import about_one_packet
from shared.media.decode import Decoded, decode
from shared.media.extent import End, Extent
from shared.media.place import storage_error
from shared.media.probe import ProbeResult, probe, refuse
from shared.media.tools import AudioTools
from shared.threads import MEDIA

# The headers alone of any format are longer. Digital silence needs ten bytes a second.
_FLOOR_BYTES = 100
# A container's length is much more exact than the catalog's. Measured on good files: up to 0.04 s
# off; a FLAC with 20 kB overwritten lacks 2 s, and ffmpeg 5.1 reports no error.
_CONTAINER_TOLERANCE_S = 0.5
_ASF_TOLERANCE_S = 1.0
# It counts bytes, and no decoder notices what is missing.
_WAV_TOLERANCE_S = 0.005
# The most that an encoder adds before and behind the music; at 8,000 Hz that is 0.3 s. ffmpeg
# before 8 counts it as part of the announced length, and no version decodes it.
_MP3_PADDING_SAMPLES = 2 * 1152
# The longest packet of a lossy codec, and the end of a file in which the last one is.
_PACKET_S = 0.06
_LAST_S = 2.0
# What may be missing of a file whose end is not there: the last frames are mostly silence.
_END_S = 1.0
# Beyond the catalog's length and the tolerance, so that most wrong songs are measured whole.
_BEYOND_S = 60.0
# Without a length in the catalog: more than any track has, and decodable within the deadline.
LONGEST_S = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class AudioFacts:
    """What was found in a file that passed; `ext` follows from its content."""

    ext: str
    codec: str
    container: str
    duration_ms: int
    bitrate_kbps: int
    sample_rate_hz: int
    channels: int
    size_bytes: int
    sha256: str
    # Of lossless audio; None where it is not known.
    sample_bits: int | None = None


class Verify(Protocol):
    """`verify`, or what remembers its answers."""

    def __call__(
        self, path: Path, *, expected_ms: int | None, tolerance_s: float, tools: AudioTools
    ) -> Awaitable[AudioFacts]:
        """As `verify`."""
        ...


async def verify(
    path: Path,
    *,
    expected_ms: int | None,
    tolerance_s: float,
    tools: AudioTools,
    timeout_s: float = 300,
    most_s: float | None = None,
) -> AudioFacts:
    """Return the facts of a file that is whole; otherwise name the rule that it breaks.

    With `most_s` only so much of it has to be whole, and counts: the rest is not decoded.

    `expected_ms` is the catalog's length, None when it has none. Without it, a WAV or a raw AAC is
    checked only for errors that a decoder notices: it has neither a checksum nor an exact length.

    Raises:
        CorruptAudio: `evidence["rule"]` names the rule; the rest is what was measured.
        AttemptFailed: the file cannot be read (`storage`), or it took longer than `timeout_s`.
        Misconfigured: ffmpeg or ffprobe does not start.
        DependencyDown: the disk is away, or ffmpeg was stopped from outside.
    """
    expected_ms = expected_ms or None  # some catalogs store 0 for an unknown length
    tolerance_s = tolerance_of(expected_ms, tolerance_s)
    evidence = _blank_evidence(expected_ms)
    try:
        async with asyncio.timeout(timeout_s):
            return await _verify(path, expected_ms, tolerance_s, tools, evidence, most_s=most_s)
    except TimeoutError as exc:
        message = f"verification took longer than {timeout_s:g} s"
        raise AttemptFailed(ErrorType.TIMEOUT, message, evidence) from exc
    except OSError as exc:
        raise storage_error(exc, f"reading {path.name} to verify it") from exc


def _blank_evidence(expected_ms: int | None) -> dict[str, object]:
    names = ("container_s", "decoded_s", "codec", "container", "size_bytes")
    return {
        "expected_s": None if expected_ms is None else expected_ms / 1000,
        **dict.fromkeys(names),
        "decoder_errors": [],
    }


async def _verify(
    path: Path,
    expected_ms: int | None,
    tolerance_s: float,
    tools: AudioTools,
    evidence: dict[str, object],
    *,
    most_s: float | None,
) -> AudioFacts:
    size_bytes = await MEDIA.run(_size, path, evidence)
    if size_bytes <= _FLOOR_BYTES:
        message = f"{size_bytes} bytes are no song (over {_FLOOR_BYTES} are)"
        raise refuse(evidence, "too_small", message)
    probed = await probe(path, tools, evidence)
    longest_s = _longest_s(expected_ms, tolerance_s) if most_s is None else most_s
    if most_s is not None:
        probed = _up_to(probed, most_s)
    _require_possible_length(probed, longest_s, evidence)
    decoded = await decode(path, tools, longest_s=longest_s, probed=probed)
    if _may_end_badly(probed, decoded):
        # What a decoder reads ahead is within these seconds.
        before = await decode(path, tools, longest_s=decoded.seconds - _LAST_S, probed=probed)
        if not (before.errors or before.returncode):
            decoded = replace(decoded, errors=())
    evidence["decoded_s"] = decoded.seconds
    evidence["decoder_errors"] = list(decoded.errors)
    _require_whole(probed, decoded, expected_ms, tolerance_s, evidence)
    sha256 = await MEDIA.run(sha256_of, path)
    return facts_of(probed, decoded.seconds, size_bytes=size_bytes, sha256=sha256)


def _up_to(probed: ProbeResult, most_s: float) -> ProbeResult:
    """As if the file had no more than that."""

    def least(seconds: float | None) -> float | None:
        return None if seconds is None else min(seconds, most_s)

    extent = replace(probed.extent, counted_s=least(probed.extent.counted_s))
    return replace(probed, duration_s=least(probed.duration_s), extent=extent)


def _may_end_badly(probed: ProbeResult, decoded: Decoded) -> bool:
    """Whether the complaints may be about one last packet that is mostly padding.

    The last packet of a lossless file, which has samples of so many bits, is music.
    """
    announced_s = probed.duration_s
    if decoded.returncode or announced_s is None or probed.extent.broken:
        return False
    if not decoded.errors or not about_one_packet(decoded.errors):
        return False
    enough = decoded.seconds >= announced_s - _padding_s(probed) - _PACKET_S
    return enough and probed.sample_bits is None and decoded.seconds > 2 * _LAST_S


def _size(path: Path, evidence: dict[str, object]) -> int:
    found = path.lstat()
    evidence["size_bytes"] = found.st_size
    if not stat.S_ISREG(found.st_mode):
        raise refuse(evidence, "not_audio", "it is not a regular file")
    return found.st_size


def _longest_s(expected_ms: int | None, tolerance_s: float) -> float:
    """How much is decoded at most: a few kilobytes may contain days of silence."""
    if expected_ms is None:
        return LONGEST_S
    return expected_ms / 1000 + tolerance_s + _BEYOND_S


def _require_possible_length(
    probed: ProbeResult, longest_s: float, evidence: dict[str, object]
) -> None:
    # It cannot pass: the decoded length has to match both this one and the catalog's.
    if probed.duration_s is not None and probed.duration_s > longest_s:
        message = f"it announces {probed.duration_s:.1f} s; at most {longest_s:.1f} s are allowed"
        raise refuse(evidence, "wrong_length", message)


def _require_whole(
    probed: ProbeResult,
    decoded: Decoded,
    expected_ms: int | None,
    tolerance_s: float,
    evidence: dict[str, object],
) -> None:
    if decoded.returncode or (decoded.errors and not _has_all_samples(probed, decoded)):
        first = decoded.errors[0] if decoded.errors else f"exit status {decoded.returncode}"
        raise refuse(evidence, "decode_errors", f"the audio is damaged: {first}")
    got_s, announced_s = decoded.seconds, probed.duration_s
    margin_s = _margin_s(probed, tolerance_s)
    if got_s == 0 or (announced_s is not None and got_s < announced_s - margin_s):
        message = f"only {got_s:.1f} s of audio in a file that announces {announced_s or 0:.1f} s"
        raise refuse(evidence, "truncated", message)
    if announced_s is not None and got_s > announced_s + margin_s:
        message = f"{got_s:.1f} s of audio in a file that announces {announced_s:.1f} s"
        raise refuse(evidence, "wrong_length", message)
    _require_the_end(probed, got_s, expected_ms, margin_s, evidence)
    if expected_ms is not None and abs(got_s - expected_ms / 1000) > tolerance_s:
        message = f"{got_s:.1f} s long, but the catalog says {expected_ms / 1000:.1f} s"
        raise refuse(evidence, "wrong_length", message)


def _has_all_samples(probed: ProbeResult, decoded: Decoded) -> bool:
    """Whether complaints are about what follows the audio.

    A FLAC says how many samples it has, and each frame has a checksum: damaged ones are left out.
    """
    if probed.container != "flac" or probed.duration_s is None:
        return False
    rate_hz = probed.sample_rate_hz
    return round(decoded.seconds * rate_hz) == round(probed.duration_s * rate_hz)


def _require_the_end(
    probed: ProbeResult,
    got_s: float,
    expected_ms: int | None,
    margin_s: float,
    evidence: dict[str, object],
) -> None:
    """Refuse a file without its end, unless the catalog's length shows that nothing is missing."""
    if probed.container == "ogg":
        reason = _lost_pages(probed.extent, expected_ms)
    else:
        reason = _lost_frames(probed.extent, got_s, expected_ms, margin_s)
    if reason is None and expected_ms is not None and probed.extent.at_end is not End.WHOLE:
        missing_s = expected_ms / 1000 - got_s
        if missing_s > _END_S and probed.extent.counted_s is None:
            reason = f"it lacks its end, {missing_s:.1f} s before the catalog's length"
    if reason is not None:
        raise refuse(evidence, "truncated", reason)


def _lost_pages(extent: Extent, expected_ms: int | None) -> str | None:
    if extent.broken:
        return "bytes between the pages of the Ogg stream are lost or overwritten"
    if extent.at_end is End.CUT or (extent.at_end is End.UNMARKED and expected_ms is None):
        return "the last page of the Ogg stream is missing"
    return None


def _lost_frames(
    extent: Extent, got_s: float, expected_ms: int | None, margin_s: float
) -> str | None:
    """Of an MP3 whose header counts more frames than there are; an editor may have cut it."""
    counted_s = extent.counted_s
    if counted_s is None or got_s >= counted_s - margin_s:
        return None
    if extent.at_end is End.WHOLE and expected_ms is not None:
        return None
    return f"only {got_s:.1f} s of audio in a file that announces {counted_s:.1f} s"


def _margin_s(probed: ProbeResult, tolerance_s: float) -> float:
    """How far the decoded length may be from the one that the file announces."""
    if probed.container == "asf":
        return min(tolerance_s, _ASF_TOLERANCE_S)
    if probed.container == "wav" and probed.codec.startswith("pcm_"):
        return min(tolerance_s, _WAV_TOLERANCE_S)
    return min(tolerance_s, _CONTAINER_TOLERANCE_S) + _padding_s(probed)


def _padding_s(probed: ProbeResult) -> float:
    return _MP3_PADDING_SAMPLES / probed.sample_rate_hz if probed.container == "mp3" else 0.0


def sha256_of(path: Path) -> str:
    """The digest of the file's content, in hexadecimal digits. Blocks, and raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def facts_of(probed: ProbeResult, seconds: float, *, size_bytes: int, sha256: str) -> AudioFacts:
    """The facts of a file of which `seconds` can be heard."""
    measured_bps = size_bytes * 8 / seconds if seconds else 0
    # The stream's bit rate leaves the cover out, but without a length it is that of one frame.
    stated_bps = probed.bitrate_bps if probed.duration_s is not None else None
    return AudioFacts(
        ext=probed.ext,
        codec=probed.codec,
        container=probed.container,
        duration_ms=round(seconds * 1000),
        bitrate_kbps=round((stated_bps or measured_bps) / 1000),
        sample_rate_hz=probed.sample_rate_hz,
        channels=probed.channels,
        size_bytes=size_bytes,
        sha256=sha256,
        sample_bits=probed.sample_bits,
    )
