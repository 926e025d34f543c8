"""What a process keeps from its children."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# What it reads of itself, a decoder that a hostile file has taken over could read.
_READS_ITS_PARENT = """
import os
import subprocess
from shared.process import blank_secrets

{blank}
with open("/proc/self/environ") as file:
    print(*sorted(line for line in file.read().split("\\0") if "hunter2" in line), sep="|")
print(os.environ["DATABASE_URL"], subprocess.check_output(["printenv", "HARMLESS"], text=True))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
@pytest.mark.parametrize(
    ("blank", "readable"),
    [
        ("blank_secrets()", "HARMLESS=hunter2"),
        ("", "DATABASE_URL=postgresql://me:hunter2@db/x|HARMLESS=hunter2|NATS_URL=hunter2"),
    ],
    ids=["blanked", "without it"],
)
def test_no_other_process_reads_the_passwords(blank: str, readable: str) -> None:
    """F30: what runs in a decoder does not get DATABASE_URL; other variables stay."""
    url = "postgresql://me:hunter2@db/x"
    done = subprocess.run(
        [sys.executable, "-c", _READS_ITS_PARENT.format(blank=blank)],
        env=os.environ | {"DATABASE_URL": url, "HARMLESS": "hunter2", "NATS_URL": "hunter2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [readable, url, "hunter2"]
