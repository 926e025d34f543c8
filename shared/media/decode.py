"""One full decode by ffmpeg, as a child process that does not outlive the call."""

from __future__ import annotations

import asyncio
import re
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path

import ffmpeg

from shared.errors import DependencyDown
from shared.media.probe import source_name
from shared.media.tools import AudioTools, missing_tools

_STDERR_LIMIT_BYTES = 64 * 1024
_KEPT_LINES = 20

# Complaints about tags and cover pictures: the music is whole without them.
_HARMLESS = re.compile(
    r"\[(mjpeg|jpegls|png|apng|gif|bmp|webp|tiff) @ [^]]*\]"
    r"|(\[[^]]*\] )?(Incorrect BOM value|Error reading (comment )?frame.*skipped)"
    r"|(\[[^]]*\] )?.*attached picture",
    re.IGNORECASE,
)
_REPEATED = re.compile(r"\s*Last message repeated \d+ times")


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """How a decode ended. After a non-zero exit, `seconds` is what the last report said."""

    returncode: int
    seconds: float
    errors: tuple[str, ...]


def command(path: Path, tools: AudioTools) -> list[str]:
    """The arguments of a decode that stops at the first damage and counts what came out."""
    # Strict for the decoder only (`err_detect:a`): in the demuxer, `explode` would also turn down
    # a good song for a damaged cover. `crccheck` is what finds a single wrong bit in a FLAC.
    source = ffmpeg.input(
        source_name(path), **{"protocol_whitelist": "file", "err_detect:a": "crccheck+explode"}
    )
    # Samples are counted, not timestamps read: those jump over missing audio as if it were there.
    output = source.output(
        "-", format="null", map="0:a:0", af="asetpts=N/SR/TB", progress="pipe:1"
    ).global_args("-nostdin", "-hide_banner", "-v", "error", "-xerror")
    compiled: list[str] = ffmpeg.compile(output, cmd=tools.ffmpeg)
    return compiled


async def decode(path: Path, tools: AudioTools) -> Decoded:
    """Decode the first audio stream of `path` and throw the samples away.

    The child is killed when the call is cancelled, so a deadline around it is enough.

    Raises:
        Misconfigured: ffmpeg does not start.
        DependencyDown: somebody stopped ffmpeg; the file is not to blame.
    """
    try:
        # A session of its own: Ctrl-C in a terminal must not look like a damaged file.
        child = await asyncio.create_subprocess_exec(
            *command(path, tools), stdout=PIPE, stderr=PIPE, start_new_session=True
        )
    except OSError as exc:
        raise missing_tools(f"{tools.ffmpeg} does not start ({exc.strerror})") from exc
    try:
        seconds, stderr = await asyncio.gather(_last_position(child), _first_errors(child))
        returncode = await child.wait()
    finally:
        await _end(child)
    errors = serious_lines(stderr)
    # 255 is how ffmpeg itself ends after SIGTERM; it turns a file down with other numbers.
    if returncode in (-9, -15, -2, 255) and not errors:
        raise DependencyDown("ffmpeg", f"ffmpeg was stopped from outside (exit {returncode})")
    return Decoded(returncode=returncode, seconds=seconds, errors=errors)


def serious_lines(stderr: str) -> tuple[str, ...]:
    """The lines that tell of damaged audio, the first few of them."""
    serious: list[str] = []
    harmless = False
    for line in stderr.splitlines():
        if not _REPEATED.match(line):
            harmless = bool(_HARMLESS.match(line))
        if line.strip() and not harmless:
            serious.append(line[:300])
    return tuple(serious[:_KEPT_LINES])


async def _last_position(child: Process) -> float:
    assert child.stdout is not None
    last = 0.0
    async for line in child.stdout:
        name, _, value = line.strip().partition(b"=")
        if name == b"out_time_us" and value.isdigit():
            last = int(value) / 1_000_000
    return last


async def _first_errors(child: Process) -> str:
    """The beginning of stderr; a child that goes on complaining beyond it is ended."""
    assert child.stderr is not None
    kept = b""
    while block := await child.stderr.read(8192):
        kept += block
        if len(kept) >= _STDERR_LIMIT_BYTES:
            kept += b"\n(more errors than were read)"
            child.kill()
            await _drain(child)
            break
    return kept.decode("utf-8", "replace")


async def _drain(child: Process) -> None:
    assert child.stderr is not None
    while await child.stderr.read(65536):
        pass


async def _end(child: Process) -> None:
    if child.returncode is None:
        child.kill()
        await asyncio.shield(child.wait())
