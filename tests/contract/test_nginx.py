"""Delivery from a real nginx as we ship it: what goes beyond what every place promises."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from services.fetcher_writer.delivery import base as port
from services.fetcher_writer.delivery.base import DeliveredFile
from services.fetcher_writer.delivery.http_folder import HttpFolder
from shared.errors import AttemptFailed, DependencyDown, ErrorType, Misconfigured
from tests.support.nginx import Answered, Nginx, nginx, nginx_binary, shipped_with
from tests.support.proxy import Proxy, proxied
from tests.support.world import eventually

ROOT = "/media/incoming"
TICKET = f"{ROOT}/t1"
MIB = 1024 * 1024
SONG_BYTES = os.urandom(3 * MIB)
SONG = DeliveredFile(name="song.flac", size_bytes=len(SONG_BYTES))
WRITTEN_AT = 1_767_605_000
UNPRINTABLE = "a\x01\t\r\n\x1f\x7fb"


async def no_wait(_: float) -> None:
    """Try again at once."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """nginx on Torrentino's incoming folder, and our place to collect to."""

    server: Nginx
    incoming: Path
    temp: Path

    @property
    def song(self) -> Path:
        return self.incoming / "t1" / SONG.name

    def put(self, name: str, content: bytes, *, mtime: int = WRITTEN_AT) -> Path:
        path = self.incoming / "t1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (mtime, mtime))
        return path

    def url(self, path: str) -> str:
        return f"{self.server.url}/t1/{path}"

    async def transfers(self, number: int) -> list[Answered]:
        """The requests for the song, once nginx has done with so many."""

        async def look() -> list[Answered]:
            return [a for a in self.server.answered() if SONG.name in a.request]

        return await eventually(look, lambda found: len(found) >= number)


@pytest.fixture
async def setting(folder: Path) -> AsyncIterator[Setting]:
    incoming, media = folder / "incoming", folder / "media"
    incoming.mkdir()
    media.mkdir()
    async with nginx(incoming) as server:
        yield Setting(server=server, incoming=incoming, temp=media / ".incoming" / "item.1.part")


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        yield client


@pytest.fixture
async def proxy(setting: Setting) -> AsyncIterator[tuple[Proxy, str]]:
    async with proxied(setting.server.url) as way:
        yield way


@pytest.fixture
async def files(setting: Setting) -> AsyncIterator[HttpFolder]:
    delivery = HttpFolder(dest_root=ROOT, files_url=setting.server.url, sleep=no_wait)
    yield delivery
    await delivery.close()


@pytest.fixture
async def far(proxy: tuple[Proxy, str]) -> AsyncIterator[HttpFolder]:
    delivery = HttpFolder(dest_root=ROOT, files_url=proxy[1], sleep=no_wait)
    yield delivery
    await delivery.close()


async def names(delivery: HttpFolder) -> list[str]:
    return [file.name for file in await delivery.files(TICKET)]


@contextmanager
def refused(setting: Setting, says: str) -> Iterator[None]:
    """What happens in the block fails the attempt, and leaves nothing behind."""
    with pytest.raises(AttemptFailed, match=says) as caught:
        yield
    assert caught.value.error_type is ErrorType.STORAGE
    assert list(setting.temp.parent.iterdir()) == []


# --- listings


async def test_a_listing_says_name_type_and_exact_size(
    setting: Setting, http: httpx.AsyncClient
) -> None:
    """What the fake in `autoindex.py` says, nginx says: links are what they lead to."""
    setting.put("song.mp3", b"12345")
    setting.put("big.mp3", bytes(3 * MIB + 1))
    setting.put("CD1/a.mp3", b"1")
    setting.put(".hidden.mp3", b"1")
    (setting.incoming / "t1" / "link.mp3").symlink_to("song.mp3")
    (setting.incoming / "t1" / "up").symlink_to("CD1")
    (setting.incoming / "t1" / "nowhere").symlink_to("gone")
    os.mkfifo(setting.incoming / "t1" / "pipe")
    answer = await http.get(setting.url(""))
    assert answer.headers["content-type"] == "application/json"
    listed = {entry["name"]: (entry["type"], entry.get("size")) for entry in answer.json()}
    assert listed == {
        "song.mp3": ("file", 5),
        "big.mp3": ("file", 3 * MIB + 1),
        "link.mp3": ("file", 5),
        "CD1": ("directory", None),
        "up": ("directory", None),
        "nowhere": ("other", None),
        "pipe": ("other", None),
    }


@pytest.mark.parametrize(
    "name",
    [
        *(
            "100% Pure?#1&x=y+z;.mp3",
            "%2e%2e",
            "%",
            "a%00b",
            "a\\b",
            '"',
            "'",
            "<b>&amp;",
            "~",
            "$uri",
        ),
        *(
            "Ünïcödé.mp3",
            "Пе́сня",
            "歌",
            "🎵",
            "e\u0301",
            "\u202egpj.mp3",
            UNPRINTABLE,
            " ",
            " a ",
            "-",
        ),
        *("index.html", "index.htm", "off", "a.gz", "a...", "n" * 255, "歌" * 85),
    ],
    ids=ascii,
)
async def test_any_name_is_listed_and_collected(
    setting: Setting, files: HttpFolder, name: str
) -> None:
    """In a folder of that name as well: a page of a torrent's own is never its listing."""
    setting.put(f"{name}/{name}", b"odd")
    found = DeliveredFile(name=f"{name}/{name}", size_bytes=3)
    assert await files.files(TICKET) == [found]
    await files.collect(TICKET, found, setting.temp)
    assert setting.temp.read_bytes() == b"odd"


async def test_the_deepest_folders_with_the_longest_names(
    setting: Setting, files: HttpFolder
) -> None:
    """Each byte of such a name takes three in the request, which nginx has to take."""
    longest = "歌" * 85
    ticket, name = "/".join([longest] * 4), "/".join([longest] * (port.MAX_DEPTH + 1))
    path = setting.incoming / ticket / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"deep")
    found = DeliveredFile(name=name, size_bytes=4)
    assert await files.files(f"{ROOT}/{ticket}") == [found]
    await files.collect(f"{ROOT}/{ticket}", found, setting.temp)
    assert setting.temp.read_bytes() == b"deep"


async def test_names_that_begin_with_a_dot_are_not_seen(
    setting: Setting, files: HttpFolder
) -> None:
    """nginx does not list them, be they titles: a limit of this way, which `README.md` states."""
    setting.put("...Baby One More Time.mp3", b"1")
    setting.put(".hidden/song.mp3", b"1")
    setting.put("song.mp3", b"1")
    assert await names(files) == ["song.mp3"]


async def test_names_that_are_no_text_are_skipped(setting: Setting, files: HttpFolder) -> None:
    """nginx lists the bytes as they are; the rest of the folder is read all the same."""
    setting.put("song.mp3", b"1")
    setting.put(os.fsdecode(b"\xff.mp3"), b"1")
    assert await names(files) == ["song.mp3"]


async def test_a_huge_listing_is_read_to_its_limit(setting: Setting, files: HttpFolder) -> None:
    """As many entries as we take, and not one more."""
    first = setting.put("first.flac", b"1")
    for number in range(1, port.MAX_ENTRIES):
        # Links of the other kind, which are files: those are made fast.
        os.link(first, first.with_name(f"{number:05} - a name as long as those of songs are.flac"))
    assert len(await names(files)) == port.MAX_ENTRIES
    setting.put("one more", b"1")
    with pytest.raises(AttemptFailed, match=f"more than {port.MAX_ENTRIES} entries"):
        await files.files(TICKET)


async def test_a_listing_that_breaks_off_is_no_short_one(
    setting: Setting, proxy: tuple[Proxy, str], far: HttpFolder
) -> None:
    """Files that were not listed would count as missing ones."""
    for number in range(50):
        setting.put(f"{number}.mp3", b"1")
    proxy[0].cut_after = 2_000
    with pytest.raises(DependencyDown, match="no answer from TORRENTINO_FILES_URL"):
        await far.files(TICKET)


# --- what is not served


async def test_links_are_not_followed(
    setting: Setting, http: httpx.AsyncClient, folder: Path
) -> None:
    """Wherever on the way they are, and wherever they lead; the secret stays one."""
    (folder / "secret").mkdir()
    (folder / "secret" / "x").write_bytes(b"secret")
    setting.put("song.mp3", b"1")
    for name, target in {
        "file": folder / "secret" / "x",
        "dir": folder / "secret",
        "beside": Path("song.mp3"),
        "self": Path("self"),
        "dev": Path("/dev/zero"),
    }.items():
        (setting.incoming / "t1" / name).symlink_to(target)
    refusals = {"dir/": 404, "dir/x": 404, "self/": 404}
    refusals |= {"file": 403, "dir": 403, "beside": 403, "self": 403, "dev": 403}
    for path, status in refusals.items():
        answer = await http.get(setting.url(path))
        assert (answer.status_code, b"secret" in answer.content) == (status, False), path


async def test_nothing_beside_the_folder_is_served(
    setting: Setting, http: httpx.AsyncClient, folder: Path
) -> None:
    """Whatever is made of dots and slashes."""
    (folder / "secret").write_bytes(b"secret")
    (folder / "incoming-too").mkdir()
    (folder / "incoming-too" / "secret").write_bytes(b"secret")
    ways = ["/files/%2e%2e/secret", "/files..%2fsecret", "/files../secret", "/files-too/secret"]
    for path in [*ways, "/files/t1/%2e%2e/%2e%2e/secret", "/secret", "/", "/etc/passwd"]:
        url = httpx.URL(f"http://127.0.0.1:{setting.server.port}", raw_path=path.encode())
        answer = await http.get(url)
        assert (answer.status_code, b"secret" in answer.content) in ((404, False), (400, False))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
async def test_it_only_reads(setting: Setting, http: httpx.AsyncClient, method: str) -> None:
    """Whatever is asked of it, files and folders stay as they are."""
    path = setting.put("song.mp3", b"1")
    for name in ("song.mp3", ""):
        answer = await http.request(method, setting.url(name), content=b"2")
        assert answer.status_code == 403
    assert path.read_bytes() == b"1"


@pytest.mark.parametrize("kind", ["file", "folder", "ticket"])
async def test_what_it_may_not_read_is_for_a_person(
    setting: Setting, files: HttpFolder, kind: str
) -> None:
    """Not the item's fault: the user that nginx runs as is wrong, for all items alike."""
    path = setting.put("CD1/song.mp3", b"1")
    song = DeliveredFile(name="CD1/song.mp3", size_bytes=1)

    async def take() -> None:
        await files.files(TICKET)
        await files.collect(TICKET, song, setting.temp)

    closed = {"file": path, "folder": path.parent, "ticket": path.parent.parent}[kind]
    closed.chmod(0)
    try:
        with pytest.raises(Misconfigured, match=r"answers 403 for .*: it must be able to read"):
            await take()
    finally:
        closed.chmod(0o755)
    assert not setting.temp.exists()


async def test_it_says_that_it_is_well(setting: Setting, http: httpx.AsyncClient) -> None:
    """The health check of its image asks, and fills no log with it."""
    answer = await http.get(f"http://127.0.0.1:{setting.server.port}/healthz")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["server"] == "nginx"
    assert setting.server.answered() == []


# --- ranges


async def test_a_range_comes_only_of_the_same_version(
    setting: Setting, http: httpx.AsyncClient
) -> None:
    """The rest of the file, or all of it when it is another one by now."""
    setting.put(SONG.name, b"0123456789")
    whole = await http.get(setting.url(SONG.name))
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["accept-ranges"] == "bytes"
    for validator in (whole.headers["etag"], whole.headers["last-modified"]):
        asked = {"Range": "bytes=4-", "If-Range": validator}
        rest = await http.get(setting.url(SONG.name), headers=asked)
        assert (rest.status_code, rest.content) == (206, b"456789")
        assert rest.headers["content-range"] == "bytes 4-9/10"
        setting.put(SONG.name, b"9876543210", mtime=WRITTEN_AT + 1)
        other = await http.get(setting.url(SONG.name), headers=asked)
        assert (other.status_code, other.content) == (200, b"9876543210")
        assert other.headers["etag"] != whole.headers["etag"]
        setting.put(SONG.name, b"0123456789")


async def test_nothing_is_compressed(setting: Setting, http: httpx.AsyncClient) -> None:
    """Not even for who would like it: ranges count the bytes of the file, and ETags stay strong."""
    setting.put("log.txt", b"a" * 100_000)
    for name in ("log.txt", ""):
        answer = await http.get(setting.url(name), headers={"Accept-Encoding": "gzip, br"})
        assert "content-encoding" not in answer.headers
    assert (await http.head(setting.url("log.txt"))).headers["etag"].startswith('"')


async def test_no_range_begins_behind_the_end(setting: Setting, http: httpx.AsyncClient) -> None:
    """Which is how a file that became shorter is found out, where there is no validator."""
    setting.put(SONG.name, b"0123456789")
    answer = await http.get(setting.url(SONG.name), headers={"Range": "bytes=10-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */10"


# --- dropped connections


async def test_a_dropped_connection_is_resumed(
    setting: Setting, proxy: tuple[Proxy, str], far: HttpFolder
) -> None:
    """From the byte that is missing, as often as it takes; what arrives is whole."""
    setting.put(SONG.name, SONG_BYTES)
    proxy[0].cut_after = MIB
    await far.collect(TICKET, SONG, setting.temp)
    assert setting.temp.read_bytes() == SONG_BYTES
    first, *others = await setting.transfers(4)
    assert (first.status, first.range) == (200, None)
    assert [again.status for again in others] == [206, 206, 206]
    # Answers have heads, which count in what is let through: a little less each time.
    offsets = [int(str(again.range).removeprefix("bytes=").removesuffix("-")) for again in others]
    steps = [after - before for before, after in zip([0, *offsets], offsets, strict=False)]
    assert all(MIB - 1_000 < step < MIB for step in steps)


async def test_a_server_that_was_restarted_goes_on(setting: Setting) -> None:
    """Its validators are made of the file alone, and so good in the next process."""
    setting.put(SONG.name, SONG_BYTES)
    async with proxied(setting.server.url) as (proxy, url):
        proxy.cut_after = MIB

        async def restart(_: float) -> None:
            proxy.cut_after = None
            await setting.server.stop()
            await setting.server.start(nginx_binary())

        delivery = HttpFolder(dest_root=ROOT, files_url=url, sleep=restart)
        await delivery.collect(TICKET, SONG, setting.temp)
        await delivery.close()
    assert setting.temp.read_bytes() == SONG_BYTES
    assert sorted(a.status for a in await setting.transfers(2)) == [200, 206]


def _same_size(setting: Setting) -> None:
    setting.put(SONG.name, SONG_BYTES[::-1], mtime=WRITTEN_AT + 1)


def _longer(setting: Setting) -> None:
    setting.put(SONG.name, SONG_BYTES + b"more")


def _truncated(setting: Setting) -> None:
    os.truncate(setting.song, 2 * MIB)


def _truncated_below_what_came(setting: Setting) -> None:
    os.truncate(setting.song, 1_000)


def _replaced(setting: Setting) -> None:
    other = setting.put("other", SONG_BYTES[::-1], mtime=WRITTEN_AT - 1)
    other.replace(setting.song)


def _removed(setting: Setting) -> None:
    setting.song.unlink()


def _emptied(setting: Setting) -> None:
    os.truncate(setting.song, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_same_size, "changed while it was collected"),
        (_replaced, "changed while it was collected"),
        (_longer, "changed while it was collected"),
        (_truncated, "changed while it was collected"),
        (_truncated_below_what_came, "changed while it was collected"),
        (_emptied, "changed while it was collected"),
        (_removed, "is gone"),
    ],
)
async def test_a_file_that_changes_before_the_rest_is_refused(
    setting: Setting, change: Callable[[Setting], None], says: str
) -> None:
    """Two halves of different files are never put together."""
    setting.put(SONG.name, SONG_BYTES)
    async with proxied(setting.server.url) as (proxy, url):
        proxy.cut_after = MIB

        async def changes(_: float) -> None:
            proxy.cut_after = None
            change(setting)

        delivery = HttpFolder(dest_root=ROOT, files_url=url, sleep=changes)
        with refused(setting, says):
            await delivery.collect(TICKET, SONG, setting.temp)
        await delivery.close()
    # nginx may log the one that was cut after the other.
    asked = sorted(transfer.range is None for transfer in await setting.transfers(2))
    assert asked == [False, True]


async def test_a_file_that_is_truncated_while_it_is_sent_is_refused(
    setting: Setting, proxy: tuple[Proxy, str], far: HttpFolder
) -> None:
    """nginx has promised its length by then: the answer ends early, and the next is another."""
    sent_bytes = 64 * MIB  # more than all buffers on the way take
    setting.put(SONG.name, b"")
    os.truncate(setting.song, sent_bytes)
    listed = DeliveredFile(name=SONG.name, size_bytes=sent_bytes)
    proxy[0].hold("down")
    collecting = asyncio.create_task(far.collect(TICKET, listed, setting.temp))

    async def held() -> int:
        return proxy[0].held

    await eventually(held)
    os.truncate(setting.song, MIB // 2)
    os.utime(setting.song, (WRITTEN_AT + 1, WRITTEN_AT + 1))
    proxy[0].flow()
    with refused(setting, "changed while it was collected"):
        await collecting
    first, second = await setting.transfers(2)
    assert first.sent_bytes < sent_bytes
    assert (second.status, second.range is None) == (200, False)


async def test_a_file_that_grew_since_the_listing_is_refused(
    setting: Setting, files: HttpFolder
) -> None:
    """It is being written still, and not ours to take."""
    setting.put(SONG.name, SONG_BYTES)
    (listed,) = await files.files(TICKET)
    setting.put(SONG.name, SONG_BYTES + b"more")
    setting.temp.parent.mkdir()
    with refused(setting, f"has {len(SONG_BYTES) + 4} bytes now"):
        await files.collect(TICKET, listed, setting.temp)


# --- the configuration


def test_a_replacement_that_finds_nothing_is_told() -> None:
    """Else the tests would go on to try a configuration that is not the one we ship."""
    with pytest.raises(AssertionError, match="has no 'listen 80;' any more"):
        shipped_with({"listen 80;": ""})
