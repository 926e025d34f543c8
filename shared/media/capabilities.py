"""What an ffmpeg can encode."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from shared.errors import Misconfigured
from shared.media.ffmpeg_process import child_of, first_bytes
from shared.media.tools import AudioTools

_ANSWER_LIMIT_BYTES = 256 * 1024
_ASKING_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """The encoders of one ffmpeg, as it names them."""

    encoders: frozenset[str]


_known: dict[str, Capabilities] = {}


async def capabilities(tools: AudioTools) -> Capabilities:
    """The encoders of this ffmpeg, which is asked once in the life of the process.

    Raises:
        Misconfigured: it does not start, or does not answer.
    """
    if tools.ffmpeg not in _known:
        _known[tools.ffmpeg] = Capabilities(encoders=frozenset(await _encoders(tools.ffmpeg)))
    return _known[tools.ffmpeg]


async def _encoders(ffmpeg: str) -> list[str]:
    try:
        async with asyncio.timeout(_ASKING_S), child_of((ffmpeg, "-v", "0", "-encoders")) as child:
            answer, _ = await first_bytes(child, child.stdout, most_bytes=_ANSWER_LIMIT_BYTES)
            await child.wait()
    except TimeoutError as exc:
        raise Misconfigured("ffmpeg", "ffmpeg does not list its encoders") from exc
    lines = [line.split() for line in answer.decode("utf-8", "replace").splitlines()]
    # Flags, name, description; the legend above has "=" for a name.
    found = [w[1] for w in lines if len(w) > 2 and len(w[0]) == 6 and w[1] != "="]
    if not found:
        raise Misconfigured("ffmpeg", "ffmpeg does not list its encoders")
    return found
