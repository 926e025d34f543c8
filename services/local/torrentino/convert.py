"""The orders of `/pipeline/process`: files that ffmpeg converts."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from shared.media.tools import AudioTools, find_tools

# By the request's format names: extension, encoder, and whether a bitrate applies.
_FORMATS: Mapping[str, tuple[str, str, bool]] = {
    "ogg_vorbis": ("ogg", "libvorbis", True),
    "ogg": ("ogg", "libvorbis", True),
    "mp3": ("mp3", "libmp3lame", True),
    "flac": ("flac", "flac", False),
    "opus": ("opus", "libopus", True),
    "aac": ("m4a", "aac", True),
    "m4a": ("m4a", "aac", True),
    "wav": ("wav", "pcm_s16le", False),
}


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file of an order; the path is one on the server."""

    path: str
    item_id: str
    dest_filename: str


@dataclass(frozen=True, kw_only=True)
class Order:
    """One job; `is_known` accepts its format."""

    files: tuple[SourceFile, ...]
    dest_dir: str
    output_format: str
    bitrate_kbps: int

    def temp_file(self, file: SourceFile, folder: Path) -> Path:
        """The path of the converted file; two files of one item id share it."""
        return folder / f"{file.item_id}.{_FORMATS[self.output_format][0]}"


def is_known(output_format: str) -> bool:
    """Whether this format can be ordered."""
    return output_format in _FORMATS


@asynccontextmanager
async def folder_for(ticket_id: str) -> AsyncIterator[Path]:
    """A temporary folder for one job."""
    made = await asyncio.to_thread(tempfile.mkdtemp, prefix=f"quentin-processor-{ticket_id}-")
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


async def convert(order: Order, file: SourceFile, folder: Path) -> int:
    """Convert one file with the arguments of the real server; return ffmpeg's exit code.

    Raises:
        Misconfigured: ffmpeg was not found.
    """
    _, encoder, takes_bitrate = _FORMATS[order.output_format]
    bitrate = ["-b:a", f"{order.bitrate_kbps}k"] if takes_bitrate else []
    target = order.temp_file(file, folder)
    if "\0" in f"{file.path}{target}":
        return 1
    process = await asyncio.create_subprocess_exec(
        (await asyncio.to_thread(_tools)).ffmpeg,
        *("-nostdin", "-v", "error", "-y", "-i", file.path, "-c:a", encoder, *bitrate, str(target)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        return await process.wait()
    finally:
        if process.returncode is None:  # the server is being stopped
            process.kill()
            await process.wait()


def move(source: Path, target: Path) -> int:
    """Move a converted file to its place, replacing an existing file; return its size.

    Raises:
        OSError: it cannot be moved.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    size_bytes = source.stat().st_size
    shutil.move(source, target)
    return size_bytes


@cache
def _tools() -> AudioTools:
    return find_tools()
