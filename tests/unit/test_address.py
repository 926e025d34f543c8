"""The command line finds the API and the key of `make run`, and gives the key to no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.address import NoKey, find_address


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which `make run` was started once, and in which we are."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/admin.key").write_text("the-key\n")
    (tmp_path / "data/api.url").write_text("http://127.0.0.1:3009\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_both_are_found() -> None:
    """Without a word of the user's."""
    found = find_address("", "", {})
    assert (found.url, found.key) == ("http://127.0.0.1:3009", "the-key")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("url", ["http://localhost:3002", "http://[::1]:1", "http://127.0.0.1"])
def test_the_key_is_for_this_machine(url: str) -> None:
    """An address that was given wins; on this machine it gets the key that was found."""
    assert find_address(url, "", {}).key == "the-key"


@pytest.mark.usefixtures("folder")
def test_the_key_goes_nowhere_else() -> None:
    """Another machine is none of `make run`."""
    with pytest.raises(NoKey, match=r"no key: set BOOTSTRAP_ADMIN_KEY"):
        find_address("http://music.example:3002", "", {})


def test_what_is_given_comes_first(folder: Path) -> None:
    """The option or BOOTSTRAP_ADMIN_KEY, then its file, then what is found."""
    (folder / "key").write_text("from-a-file")
    environ = {"BOOTSTRAP_ADMIN_KEY_FILE": str(folder / "key")}
    assert find_address("", "given", environ).key == "given"
    assert find_address("", "", environ).key == "from-a-file"
