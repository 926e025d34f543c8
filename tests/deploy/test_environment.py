"""The set-up says in one line why it cannot go on, and knows what is there already."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """deploy/environment.py, for a project that is a folder of the test's."""
    spec = importlib.util.spec_from_file_location("environment", ROOT / "deploy/environment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in (*module.LOCKS.values(), "pyproject.toml"):
        (tmp_path / name).write_text(f"{name}==1\n")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    for name, path in (("VENV", ""), ("STAMP", "installed.json"), ("LOG", "setup.log")):
        monkeypatch.setattr(module, name, tmp_path / ".venv" / path)
    return module


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("ERROR: No matching distribution found for alembic==1.20.1", "no package index answers"),
        ("WARNING: Retrying after 'NewConnectionError('…')'\nERROR: x", "no package index answers"),
        ('WARNING: ReadTimeoutError("…: Read timed out.")', "no package index answers"),
        ("ERROR: SSLError(SSLCertVerificationError(1, 'CERTIFICATE_VERIFY_FAILED'", "PIP_CERT"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("one\nERROR: two\nthree", "fetching failed: ERROR: two (all of it: "),
        ("", "fetching failed: it printed nothing (all of it: "),
    ],
)
def test_why_it_failed_is_one_line(environment: ModuleType, said: str, line: str) -> None:
    """Of all that pip says, the remedy is shown; the rest is in a file."""
    reason = environment.reason_of("fetching", said.splitlines())
    assert line in reason
    assert len(reason.splitlines()) == 1
    if "setup.log" in reason:
        assert environment.LOG.read_text().strip() == said


def test_what_is_there_is_not_made_again(environment: ModuleType) -> None:
    """All holds what a run needs, not the other way round; a changed lock is another."""
    stamp = {"where": str(environment.VENV), "python": environment.python_version(), "locks": {}}
    assert not environment.is_installed("run", {})
    stamp["locks"] = {"run": environment.digest_of("run")}
    environment.write_stamp(stamp, unfinished=False)
    found = environment.read_stamp(this_python=True)
    assert environment.is_installed("run", found)
    assert not environment.is_installed("all", found)
    (environment.ROOT / "requirements-local.lock").write_text("another==2\n")
    assert not environment.is_installed("run", found)


@pytest.mark.parametrize("wrong", ["moved", "another Python", "no python", "no JSON", "none"])
def test_one_that_is_of_no_use_is_made_anew(environment: ModuleType, wrong: str) -> None:
    """A clone that was moved has scripts that lead nowhere; a Python may be gone."""
    stamp = {"where": str(environment.VENV), "python": "3.12.1", "locks": {}}
    environment.write_stamp(stamp, unfinished=False)
    if wrong == "moved":
        environment.STAMP.write_text(json.dumps({**stamp, "where": "/elsewhere/.venv"}))
    elif wrong == "no python":
        (environment.VENV / "bin/python").unlink()
    elif wrong == "no JSON":
        environment.STAMP.write_text('{"where"')
    elif wrong == "none":
        environment.STAMP.unlink()
    assert environment.read_stamp(this_python=True) == {}
    # Without a name, the Python that is there is used.
    assert bool(environment.read_stamp(this_python=False)) == (wrong == "another Python")


def test_too_small_a_disk_and_too_old_a_python(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before anything is made."""
    monkeypatch.setitem(environment.WANTED_MB, "run", 10**12)
    with pytest.raises(environment.Failed, match=r"MB free, setting up takes .*: free some space"):
        environment.check_room("run")
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    with pytest.raises(environment.Failed, match=r"Python 3.11 or newer is needed, .* is 3\.10"):
        environment.check_python()


def test_a_command_that_fails_is_told_by_its_words(environment: ModuleType, tmp_path: Path) -> None:
    """And what came before it in the log of an earlier one does not count."""
    with (tmp_path / "lock").open("w") as lock:
        steps = environment.Steps(0.0, lock.fileno())
        steps.run("looking", [sys.executable, "-c", "print('ERROR: of before')"])
        with pytest.raises(environment.Failed, match=r"making failed: an error: no such thing"):
            steps.run("making", [sys.executable, "-c", "exit('an error: no such thing')"])
        assert os.fstat(lock.fileno())
