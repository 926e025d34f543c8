"""`make bench`: the cost of a request from start to end, on this machine.

The services run in a separate process (`run all`); PostgreSQL with fsync, NATS and the stand-in
share the cores with it. Prints tables and writes bench-results/*.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench import (
    albums,
    claims,
    contained,
    conversion,
    latency,
    matching,
    presence,
    publish,
    queue,
    reference,
    throughput,
)
from bench.setting import bench_world
from tests.support.world import World

Result = dict[str, Any]
Bench = Callable[[World], Awaitable[Result]]

BENCHES: dict[str, Bench] = {
    "latency": latency.run,
    "throughput": throughput.run,
    "reference": reference.run,
    "albums": albums.run,
    "conversion": conversion.run,
    "matching": matching.run,
    "presence": presence.run,
    "publish": publish.run,
    "queue": queue.run,
    "contained": contained.run,
    "claims": claims.run,
}


async def _run(names: list[str], out: Path) -> None:
    out.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    for name in names:
        with tempfile.TemporaryDirectory(prefix="pezzottify-bench-") as folder:
            Path(folder).chmod(0o755)
            async with bench_world(Path(folder)) as world:
                result = await BENCHES[name](world)
        print(f"\n{name}")
        for key, value in result.items():
            print(f"  {key:<44} {value}")
        (out / f"{name}.json").write_text(json.dumps(machine | result, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHES], metavar="|".join(BENCHES))
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    arguments = parser.parse_args()
    asyncio.run(_run(arguments.names or list(BENCHES), arguments.out))


if __name__ == "__main__":
    main()
