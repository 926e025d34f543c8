"""One run of ffmpeg that writes a file: afterwards it is whole and on disk, or not there."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ffmpeg

from shared.errors import AttemptFailed, CorruptAudio, DependencyDown, DownloadsError, ErrorType
from shared.media.complaints import serious_lines
from shared.media.decode import (
    FLOODED,
    STDERR_LIMIT_BYTES,
    Decoded,
    last_position,
    with_reason,
)
from shared.media.ffmpeg_process import CPU_S, KILLED, STOPPED, child_of, first_bytes
from shared.media.formats import DEMUXERS
from shared.media.place import discard, storage_error, translated
from shared.media.probe import protocols, refuse, source_name
from shared.media.tails import audio_start
from shared.media.tools import AudioTools
from shared.threads import MEDIA

# Errors of the disk that is written to. Not EIO: ffmpeg reports it for damaged sources as well.
_DISK = {os.strerror(n): n for n in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE)}
# Errors that are not the fault of the source: for it a good torrent would be blocked.
_OUR_FAULT = re.compile(
    r"opening encoder|unknown encoder|initializ\w+ (output|filter)|suitable output format"
    r"|could not write header|unrecognized option|option .* not found",
    re.IGNORECASE,
)
# Beside the audio: headers, an index, and text tags, of which lyrics are the longest.
SPARE_BYTES = 4 * 1024 * 1024
# A decoder may lose its last frame to a tag behind the audio.
SHORT_S = 0.06
# Pictures that are stored as text; those that are streams are not mapped.
_NO_PICTURES = ("metadata_block_picture=", "coverart=", "coverartmime=")


async def command(
    source: Path, target: Path, tools: AudioTools, *, writing: Mapping[str, object]
) -> list[str]:
    """The command that writes the first audio stream of `source`, and nothing else, to `target`.

    `writing` are ffmpeg's options for the output. A tag before an MP4 or WAV is not read.

    Raises:
        DependencyDown: the disk of the source is away.
    """
    with translated("reading the file to convert"):
        name = source_name(source, start=await MEDIA.run(audio_start, source))
    opened = ffmpeg.input(
        name,
        **{
            "protocol_whitelist": protocols(name),
            "format_whitelist": DEMUXERS,
            # Damaged frames are left out, not concealed: then the length shows them.
            "err_detect:a": "crccheck+explode",
            # Several files are written at once; more threads for one only cost memory.
            "threads": 1,
        },
    )
    output = opened.output(
        source_name(target),
        **{
            "map": "0:a:0",
            "metadata": list(_NO_PICTURES),
            "map_chapters": -1,
            "threads": 1,
            **writing,
        },
    ).global_args(*("-nostdin", "-hide_banner", "-v", "error", "-nostats", "-progress", "pipe:1"))
    compiled: list[str] = ffmpeg.compile(output, cmd=tools.ffmpeg, overwrite_output=True)
    return compiled


async def write_audio(
    arguments: Sequence[str],
    target: Path,
    tools: AudioTools,
    *,
    expected_s: float,
    most_bytes: int,
    timeout_s: float,
    on_progress: Callable[[float], None] | None = None,
    short_s: float = SHORT_S,
) -> None:
    """Run ffmpeg with the `arguments` that `command` gave for `target`.

    `target` is created with the mode of the umask, replaces an old one, and has at most
    `most_bytes`. It is on disk when this returns, and not there when it raises or is cancelled; the
    child is killed then. `on_progress` gets the rising percentage of `expected_s`, 0 to 100, twice
    a second and at the end.

    Raises:
        CorruptAudio: `short_s` or more of `expected_s` are missing, or it is over `most_bytes`.
        AttemptFailed: ffmpeg rejects the arguments, or it took longer than `timeout_s`.
        DependencyDown: the disk is full or away, or ffmpeg was stopped from outside.
        Misconfigured: ffmpeg does not start.
    """
    report = _Report(on_progress, expected_s)
    try:
        await MEDIA.run(_create, target)
        async with asyncio.timeout(timeout_s):
            run = await _run(arguments, tools, most_bytes, timeout_s, report.at)
            if run.returncode == KILLED and not run.errors:
                run = with_reason(await _run(arguments, tools, most_bytes, timeout_s, report.at))
        # A short file may be written before the limit of the process is set.
        too_large = (await MEDIA.run(target.stat)).st_size > most_bytes
        _judge(run, target, expected_s, short_s, too_large=too_large)
        await MEDIA.run(_flush, target)
    except TimeoutError as exc:
        await MEDIA.run(discard, target)
        message = f"writing {target.name} took ffmpeg longer than {timeout_s:g} s"
        raise AttemptFailed(ErrorType.TIMEOUT, message) from exc
    except BaseException:
        await MEDIA.run(discard, target)
        raise
    report.at(expected_s)


class _Report:
    """Turns positions into rising percentages."""

    def __init__(self, on_progress: Callable[[float], None] | None, expected_s: float) -> None:
        self._on_progress = on_progress
        self._expected_s = expected_s
        self._last = -1.0

    def at(self, position_s: float) -> None:
        percent = min(100.0, 100 * position_s / self._expected_s) if self._expected_s else 100.0
        if self._on_progress is not None and percent > self._last:
            self._last = percent
            self._on_progress(percent)


def _create(target: Path) -> None:
    with translated("making a temporary file"):
        target.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(target, flags, 0o666))


async def _run(
    arguments: Sequence[str],
    tools: AudioTools,
    most_bytes: int,
    timeout_s: float,
    on_position: Callable[[float], None],
) -> Decoded:
    # More than the deadline: ffmpeg ends at this limit as it does at a stop from outside.
    limits = {
        "memory_bytes": tools.memory_bytes,
        "file_bytes": most_bytes,
        "cpu_s": CPU_S + int(timeout_s),
    }
    async with child_of(arguments, **limits) as child:
        seconds, (stderr, flooded) = await asyncio.gather(
            last_position(child, on_position),
            first_bytes(child, child.stderr, most_bytes=STDERR_LIMIT_BYTES),
        )
        returncode = await child.wait()
    errors = serious_lines(stderr.decode("utf-8", "replace"))
    return Decoded(
        returncode=returncode,
        seconds=seconds,
        errors=errors or ((FLOODED,) if flooded else ()),
    )


def _judge(
    run: Decoded, target: Path, expected_s: float, short_s: float, *, too_large: bool
) -> None:
    """Raise the error of the run, if it failed.

    Complaints alone are no error: `verify` has passed the source, and some good files end with a
    tag that decoders do not expect. The length of the output decides.
    """
    for line in run.errors:
        for text, number in _DISK.items():
            if line.endswith(text):
                error = OSError(number, text, str(target))
                raise storage_error(error, "writing a converted file")
    refused = any(line.endswith(os.strerror(errno.EFBIG)) for line in run.errors)
    if too_large or refused or run.returncode == -signal.SIGXFSZ:
        raise _refused(run, expected_s, "too_large", "it becomes larger than its length allows")
    if run.returncode in STOPPED and not run.errors:
        raise DependencyDown("ffmpeg", f"ffmpeg was stopped from outside (exit {run.returncode})")
    if run.returncode:
        raise _rejected(run, expected_s)
    if run.seconds < expected_s - short_s:
        message = f"only {run.seconds:.2f} s of {expected_s:.2f} s could be read"
        raise _refused(run, expected_s, "truncated", message)


def _rejected(run: Decoded, expected_s: float) -> DownloadsError:
    first = run.errors[0] if run.errors else f"exit status {run.returncode}"
    for line in run.errors:
        if _OUR_FAULT.search(line):
            evidence = {"decoder_errors": list(run.errors)}
            return AttemptFailed(ErrorType.UNKNOWN, f"ffmpeg cannot write it: {line}", evidence)
    return _refused(run, expected_s, "decode_errors", f"ffmpeg cannot read it: {first}")


def _refused(run: Decoded, expected_s: float, rule: str, message: str) -> CorruptAudio:
    evidence = {
        "expected_s": expected_s,
        "decoded_s": run.seconds,
        "decoder_errors": list(run.errors),
    }
    return refuse(evidence, rule, message)


def _flush(target: Path) -> None:
    with translated("writing a converted file"):
        fd = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
