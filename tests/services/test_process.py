"""What a process keeps from its children."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# As an ordinary user: root may read everything. The fork stands for a decoder gone wrong.
_READS_ITS_PARENT = """
import ctypes, os
from shared.process import keep_environment_private

if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # a change of the user has turned it off
{keep}
child = os.fork()
if child == 0:
    try:
        with open(f"/proc/{{os.getppid()}}/environ") as file:
            print("secret" if "SECRET=hunter2" in file.read() else "nothing", flush=True)
    except PermissionError:
        print("refused", flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
@pytest.mark.parametrize(
    ("keep", "reads"), [("keep_environment_private()", "refused"), ("", "secret")]
)
def test_a_child_cannot_read_the_passwords(keep: str, reads: str) -> None:
    """F30: what a decoder runs for a hostile file does not get DATABASE_URL."""
    done = subprocess.run(
        [sys.executable, "-c", _READS_ITS_PARENT.format(keep=keep)],
        env=os.environ | {"SECRET": "hunter2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == reads, done.stderr
