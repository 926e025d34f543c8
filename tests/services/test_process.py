"""What a process keeps from its children."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pytest

from shared.process import close_to_others

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


# Without the packages, which that user may not be able to reach.
_IS_READ_BY_ITS_CHILD = """
import ctypes, os, subprocess, sys

{source}
{close}
child = "import os, sys; p = f'/proc/{{os.getppid()}}/'; open(p + sys.argv[1]).read(1)"
tries = (
    ("environ", child), ("maps", child), ("mem", child),
    ("fd", child.replace("open", "os.listdir").replace(".read(1)", "")),
)
for name, code in tries:
    command = [sys.executable, "-IS", "-c", code, name]
    said = subprocess.run(command, stderr=subprocess.PIPE, text=True).stderr
    print(name, "PermissionError" if "PermissionError" in said else "open")
print("own", len(os.listdir("/proc/self/fd")) > 2, os.readlink("/proc/self/fd/1")[:4])
print("child", subprocess.run(["cat", "/proc/self/environ"], stdout=subprocess.DEVNULL).returncode)
"""

# Another user than root, who may read everything.
_USER = 65534 if os.getuid() == 0 else None


def _python() -> str:
    """A Python that this user may run: root's may be in a folder of its own."""
    for path in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            subprocess.run([path, "-IS", "-c", ""], cwd="/", user=_USER, check=True)
        except OSError:
            continue
        return path
    pytest.skip("there is no Python that another user may run")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
@pytest.mark.parametrize(
    ("close", "closed"), [("close_to_others()", True), ("", False)], ids=["closed", "without it"]
)
def test_a_child_reads_neither_memory_nor_files_of_its_parent(close: str, closed: bool) -> None:
    """F30: a decoder that was taken over finds no password in the service that started it; the
    service can read what it needs of itself, and its child of itself."""
    source = inspect.getsource(close_to_others)
    done = subprocess.run(
        [
            *(_python(), "-IS", "-c"),
            _IS_READ_BY_ITS_CHILD.format(source=source, close=close),
        ],
        cwd="/",
        user=_USER,
        capture_output=True,
        text=True,
        check=True,
    )
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert said.pop("own") == "True pipe"
    assert said.pop("child") == "0"
    # Yama, where it is, keeps a child out of its parent's memory by itself.
    tried = ("environ", "fd", "maps", "mem") if closed else ("environ", "fd", "maps")
    assert {said[name] for name in tried} == {"PermissionError" if closed else "open"}
