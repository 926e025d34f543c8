"""The stand-in as a separate process: `python -m services.local.torrentino --songs FOLDER`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import get_args

from services.local.torrentino.config import Client, StandinConfig
from services.local.torrentino.server import Standin
from services.local.torrentino.source import SongList, load_songs

_DEFAULTS = StandinConfig()


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; print one line with the API's address once it answers."""
    options = _options(arguments)
    source = SongList([]) if options.songs is None else load_songs(options.songs)
    config = StandinConfig(
        host=options.host,
        port=options.port,
        api_key=options.api_key,
        database=options.database,
        client=options.client,
        downloads=None if options.downloads is None else options.downloads.resolve(),
        save_path=options.save_path,
        acquire_s=options.acquire_s,
        download_s=options.download_s,
        convert_s=options.convert_s,
        place_s=options.place_s,
        tick_s=options.tick_s,
        checking_s=options.checking_s,
        decoys=not options.no_decoys,
        max_concurrent_downloads=options.max_concurrent_downloads,
        orchestrator=not options.no_orchestrator,
        dashboard=not options.no_dashboard,
    )
    asyncio.run(_serve(Standin(config, source)))
    return 0


async def _serve(standin: Standin) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with standin:
        sys.stdout.write(f"listening on {standin.url}\n")
        sys.stdout.flush()
        await stop.wait()


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m services.local.torrentino", description=__doc__
    )
    parser.add_argument("--host", default=_DEFAULTS.host)
    parser.add_argument("--port", type=int, default=_DEFAULTS.port, help="0: any free port")
    parser.add_argument(
        "--songs", type=Path, help="a folder of `Artist - Title.ext`, or JSON: see load_songs"
    )
    parser.add_argument("--api-key", help="without it every client is admitted")
    parser.add_argument("--database", type=Path, help="SQLite file; without it tickets are lost")
    parser.add_argument(
        "--client", choices=get_args(Client), default=_DEFAULTS.client, help="simulate this one"
    )
    parser.add_argument("--downloads", type=Path, help="the folder for torrents")
    parser.add_argument("--save-path", help="that folder as the client names it")
    for name in ("acquire", "download", "convert", "place", "tick", "checking"):
        default: float = getattr(_DEFAULTS, f"{name}_s")
        parser.add_argument(f"--{name}-s", type=float, default=default, metavar="SECONDS")
    parser.add_argument(
        "--max-concurrent-downloads", type=int, default=_DEFAULTS.max_concurrent_downloads
    )
    parser.add_argument("--no-decoys", action="store_true", help="/search lists no wrong releases")
    parser.add_argument("--no-orchestrator", action="store_true", help="tickets stay pending")
    parser.add_argument("--no-dashboard", action="store_true", help="unknown paths are 404")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
