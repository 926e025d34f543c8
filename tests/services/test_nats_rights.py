"""The rights of the NATS users, tried on a real server that has the config we ship."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import nats
import pytest
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import BadRequestError

from services.local.servers import Nats
from shared.bus.streams import STREAMS, ensure_streams
from shared.bus.subjects import Wake
from shared.settings import EVERY_SERVICE
from tests.support.shipped_nats import USERS, ShippedNats, Visitor, refusal_of, visitor
from tests.support.world import eventually

ROOT = Path(__file__).parents[2]
P = "pezzottify.download"
REQUESTS, EVENTS, DEAD = (f"PEZZOTTIFY_DOWNLOAD_{name}" for name in ("REQUESTS", "EVENTS", "DEAD"))
ASKING = {f"{P}.request.{kind}" for kind in ("track", "album", "cancel")}
WORK = {f"{P}.work.{kind}" for kind in ("ticket", "poll", "fetch", "scan")}
EVENT = {f"{P}.event.item.queued.x", f"{P}.event.audio.ready.x"}


def api(*calls: str) -> set[str]:
    """Calls of JetStream's interface."""
    return {f"$JS.API.{call}" for call in calls}


def on_stream(stream: str) -> set[str]:
    """All that can be done with a stream, and with three consumers of it."""
    whole = ("INFO", "CREATE", "UPDATE", "DELETE", "PURGE", "MSG.GET", "MSG.DELETE", "SNAPSHOT")
    found = api(*(f"STREAM.{call}.{stream}" for call in whole), f"DIRECT.GET.{stream}")
    found |= api(*(f"CONSUMER.{call}.{stream}" for call in ("CREATE", "LIST", "NAMES")))
    found |= {f"$JS.FC.{stream}.x.y"}
    for name in ("ingest", "watchdog", "other"):
        calls = ("CREATE", "DURABLE.CREATE", "INFO", "DELETE", "MSG.NEXT", "PAUSE")
        found |= api(*(f"CONSUMER.{call}.{stream}.{name}" for call in calls))
        found |= api(f"CONSUMER.CREATE.{stream}.{name}.{P}.command.scan")
        found |= {f"$JS.ACK.{stream}.{name}.1.1.1.1.0"}
    return found


EVERYTHING = {
    *ASKING, *WORK, *EVENT, f"{P}.command.scan", f"{P}.dead", f"{P}.other", "other",
    *api("INFO", "STREAM.NAMES", "STREAM.LIST", "ACCOUNT.PURGE.$G"),
    *on_stream(REQUESTS), *on_stream(EVENTS), *on_stream(DEAD), *on_stream("OTHER"),
    # What a wildcard too many would open.
    *(f"{P}.{kind}.other" for kind in ("request", "command", "work", "dead")),
    *(f"{subject}.other" for subject in ASKING | WORK),
    "_INBOX.x", "_INBOX_catalog.x", *(f"_INBOX_{user}.x" for user in USERS),
    "$SYS.REQ.SERVER.PING", "$KV.x.y",
}  # fmt: skip

STREAMS_MADE = api(
    *(f"STREAM.{call}.{s}" for call in ("INFO", "CREATE") for s in (REQUESTS, EVENTS, DEAD))
)


def own_consumer(name: str) -> set[str]:
    """What the owner of a durable consumer of requests does with it."""
    calls = ("CREATE", "DURABLE.CREATE", "INFO", "DELETE", "PAUSE", "MSG.NEXT")
    found = api(*(f"CONSUMER.{call}.{REQUESTS}.{name}" for call in calls))
    return found | {f"$JS.ACK.{REQUESTS}.{name}.1.1.1.1.0"}


def wakes(*kinds: str) -> set[str]:
    """Wake-ups."""
    return {f"{P}.work.{kind}" for kind in kinds}


_ALL = EVENT | STREAMS_MADE
MAY_PUBLISH = {
    "ingest": _ALL | WORK | {f"{P}.dead"} | own_consumer("ingest")
    | api(*(f"STREAM.UPDATE.{stream}" for stream in (REQUESTS, EVENTS, DEAD))),
    "ticketer": _ALL | wakes("poll"),
    "poller": _ALL | wakes("ticket", "fetch"),
    "fetcher_writer": _ALL | wakes("ticket"),
    "watchdog": _ALL | wakes("ticket") | {f"{P}.dead"} | own_consumer("watchdog")
    | api(f"CONSUMER.CREATE.{REQUESTS}.watchdog.{P}.command.scan"),
    "reaper": _ALL | wakes("ticket", "fetch"),
    "bridge": _ALL | ASKING,
    "catalog": ASKING | api("INFO", "STREAM.NAMES") | on_stream(EVENTS) - api(
        *(f"STREAM.{c}.{EVENTS}" for c in ("CREATE", "UPDATE", "DELETE", "PURGE", "SNAPSHOT")),
        *(f"STREAM.{c}.{EVENTS}" for c in ("MSG.GET", "MSG.DELETE")), f"DIRECT.GET.{EVENTS}",
        *(f"CONSUMER.PAUSE.{EVENTS}.{c}" for c in ("ingest", "watchdog", "other")),
    ),
    "operator": EVERYTHING,
}  # fmt: skip

# What is subscribed to, in which queue group, and where a message to it goes.
Listening = tuple[str, str, str]
READY: set[Listening] = {
    (f"{P}.event.audio.ready.{rest}", "", f"{P}.event.audio.ready.x") for rest in "*>"
}
EVERY_LISTENING: set[Listening] = {
    *((f"{P}.work.{kind}", queue, f"{P}.work.{kind}")
      for kind in ("ticket", "poll", "fetch", "scan")
      for queue in ("", "other", "ticketer", "poller", "fetcher_writer", "watchdog")),
    *((f"_INBOX_{user}.>", "", f"_INBOX_{user}.x") for user in USERS),
    ("_INBOX.>", "", "_INBOX.x"), ("_INBOX.catalog.>", "", "_INBOX.catalog.x"),
    (f"{P}.event.>", "", f"{P}.event.x"),
    *READY,
    (f"{P}.request.*", "", f"{P}.request.track"), (f"{P}.command.>", "", f"{P}.command.scan"),
    (f"{P}.dead", "", f"{P}.dead"), (f"{P}.>", "", f"{P}.dead"), (">", "", f"{P}.dead"),
    ("$JS.>", "", "$JS.ACK.x"), ("$SYS.>", "", "$SYS.x"), ("*.x", "", "_INBOX_ingest.x"),
}  # fmt: skip


def inbox(user: str) -> Listening:
    """A user's own."""
    return (f"_INBOX_{user}.>", "", f"_INBOX_{user}.x")


def woken(kind: str, queue: str) -> Listening:
    """A wake-up, for one of a queue group."""
    return (f"{P}.work.{kind}", queue, f"{P}.work.{kind}")


MAY_LISTEN: dict[str, set[Listening]] = {
    "ingest": {inbox("ingest")},
    "ticketer": {inbox("ticketer"), woken("ticket", "ticketer")},
    "poller": {inbox("poller"), woken("poll", "poller")},
    "fetcher_writer": {inbox("fetcher_writer"), woken("fetch", "fetcher_writer")},
    "watchdog": {inbox("watchdog"), woken("scan", "watchdog")},
    "reaper": {inbox("reaper")},
    "bridge": {inbox("bridge"), *READY},
    "catalog": {
        ("_INBOX.>", "", "_INBOX.x"),
        ("_INBOX.catalog.>", "", "_INBOX.catalog.x"),
        (f"{P}.event.>", "", f"{P}.event.x"),
        *READY,
    },
    "operator": EVERY_LISTENING,
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ShippedNats]:
    """The shipped server, with our streams."""
    made = ShippedNats(tmp_path / "nats")
    await made.start()
    try:
        async with visitor(made.url) as operator:
            await ensure_streams(operator.client.jetstream())
        yield made
    finally:
        await made.stop()


async def arrived(operator: Visitor, subscription: Subscription) -> set[str]:
    """The subjects of all that came up to now."""
    await operator.client.publish("the.end")
    found = set()
    while (message := await subscription.next_msg(timeout=5)).subject != "the.end":
        found.add(message.subject)
    return found


async def stored(operator: Visitor) -> set[str]:
    """The subjects of all messages in our streams."""
    found: set[str] = set()
    for stream in STREAMS:
        assert stream.name is not None
        info = await operator.client.jetstream().stream_info(stream.name, subjects_filter=">")
        found |= set(info.state.subjects or {})
    return found


@pytest.mark.parametrize("user", [user for user in USERS if user != "operator"])
async def test_who_may_publish_what(server: ShippedNats, user: str) -> None:
    """Every subject there is: what is allowed arrives; the rest is refused, and arrives nowhere."""
    allowed = MAY_PUBLISH[user]
    assert allowed < EVERYTHING
    async with visitor(server.url) as operator, visitor(server.url_of(user)) as tried:
        everything = await operator.client.subscribe(">")
        await operator.judged()
        for subject in sorted(EVERYTHING):
            await tried.client.publish(subject, b"?")
            refused = await tried.refused()
            if subject in allowed:
                assert refused == [], subject
            else:
                wanted = f'nats: permissions violation for publish to "{subject.lower()}"'
                assert refused == [wanted]
        came = await arrived(operator, everything)
        assert came & EVERYTHING == allowed
        kept = await stored(operator)
    assert kept == allowed & (ASKING | EVENT | {f"{P}.command.scan", f"{P}.dead"})


@pytest.mark.parametrize("user", [user for user in USERS if user != "operator"])
async def test_who_may_listen_to_what(server: ShippedNats, user: str) -> None:
    """A wake-up only as one of its service, an own inbox, and events for the catalog."""
    assert MAY_LISTEN[user] < EVERY_LISTENING
    async with visitor(server.url) as operator, visitor(server.url_of(user)) as tried:
        for subject, queue, probe in sorted(EVERY_LISTENING):
            subscription = await tried.client.subscribe(subject, queue=queue)
            refused = await tried.refused()
            await operator.client.publish(probe, b"?")
            await operator.judged()
            await tried.judged()
            if (subject, queue, probe) in MAY_LISTEN[user]:
                assert refused == [], subject
                assert (await subscription.next_msg(timeout=5)).subject == probe
            else:
                assert [line for line in refused if f'subscription to "{subject.lower()}"' in line]
                assert subscription.pending_msgs == 0
            await subscription.unsubscribe()


@pytest.mark.parametrize("service", EVERY_SERVICE)
def test_every_wake_up_of_the_code_is_allowed_and_no_other(service: str) -> None:
    """A wake-up that a service sends is one that its user may send; the lists hold no more."""
    code = "\n".join(path.read_text() for path in (ROOT / "services" / service).rglob("*.py"))
    # The calls that send one, and what is declared to be one.
    lines = [
        line for line in code.splitlines() if re.search(r"announce\(|\bWake\b|\bWoken\b", line)
    ]
    sent = set(re.findall(r'"(\w+)"', "\n".join(lines))) & set(get_args(Wake))
    assert wakes(*sent) == MAY_PUBLISH[service] & WORK
    heard = re.findall(r'bus\.listen\("(\w+)", .+, queue="(\w+)"\)', code)
    assert {woken(kind, queue) for kind, queue in heard} == MAY_LISTEN[service] - {
        inbox(service),
        *READY,
    }


async def test_the_operator_may_do_everything(server: ShippedNats) -> None:
    """Commands, the dead stream, repairs; nothing is refused."""
    async with visitor(server.url) as operator:
        js = operator.client.jetstream()
        await js.publish(f"{P}.command.scan", b"{}")
        await js.publish(f"{P}.dead", b"{}")
        assert (await js.get_msg(DEAD, 1)).subject == f"{P}.dead"
        await js.purge_stream(REQUESTS)
        await js.delete_stream(DEAD)
        assert await operator.refused() == []


async def test_passwords_are_texts_whatever_they_look_like(server: ShippedNats) -> None:
    """A password of digits, or one like 1e5, is that and nothing else."""
    for user in USERS:
        async with visitor(server.url_of(user)) as tried:
            assert await tried.refused() == []
        for wrong in ("", "100000", server.passwords[user] + "0"):
            url = f"nats://{user}:{wrong}@127.0.0.1:{server.port}"
            assert "Authorization Violation" in str(await refusal_of(url))


async def test_who_names_no_user_is_refused(server: ShippedNats) -> None:
    """There is no anonymous access, also for who is inside of the network."""
    for url in (f"nats://127.0.0.1:{server.port}", f"nats://guest:x@127.0.0.1:{server.port}"):
        assert "Authorization Violation" in str(await refusal_of(url))


@pytest.mark.parametrize("prefix", ["_INBOX", "_INBOX.catalog"])
async def test_the_catalog_reads_events_in_every_way(server: ShippedNats, prefix: str) -> None:
    """Plain, by durable and short-lived pull consumers, pushed, and in order: as it likes."""
    async with visitor(server.url_of("catalog"), inbox_prefix=prefix) as catalog:
        js = catalog.client.jetstream(timeout=3)
        assert (await js.publish(f"{P}.request.track", b"{}")).stream == REQUESTS
        plain = await catalog.client.subscribe(f"{P}.event.>")
        await catalog.judged()
        async with visitor(server.url_of("poller"), inbox_prefix="_INBOX_poller") as poller:
            for _ in range(3):
                await poller.client.jetstream().publish(f"{P}.event.audio.ready.x", b"{}")
        assert (await plain.next_msg(timeout=3)).data == b"{}"
        durable = await js.pull_subscribe(f"{P}.event.>", durable="catalog")
        first, second = await durable.fetch(2, timeout=3)
        await first.ack_sync()
        await second.nak()
        passing = await js.pull_subscribe(f"{P}.event.audio.ready.*", stream=EVENTS)
        assert len(await passing.fetch(3, timeout=3)) == 3
        for options in ({"ordered_consumer": True}, {"durable": "push", "flow_control": True}):
            pushed = await js.subscribe(f"{P}.event.>", idle_heartbeat=1.0, **options)
            assert (await pushed.next_msg(timeout=3)).data == b"{}"
            await pushed.unsubscribe()
        assert len(await js.consumers_info(EVENTS)) >= 3
        await js.delete_consumer(EVENTS, "catalog")
        assert await catalog.refused() == []


async def test_the_catalog_reads_no_other_stream(server: ShippedNats) -> None:
    """Not by a request that names the events in its subject and another stream inside."""
    async with visitor(server.url) as operator:
        await operator.client.jetstream().publish(f"{P}.command.scan", b"{}")
    async with visitor(server.url_of("catalog")) as catalog:
        for stream in (REQUESTS, DEAD):
            config = {"name": "x", "ack_policy": "none"}
            body = json.dumps({"stream_name": stream, "config": config}).encode()
            for tail in ("", ".x"):
                subject = f"$JS.API.CONSUMER.CREATE.{EVENTS}{tail}"
                answer = await catalog.client.request(subject, body, timeout=3)
                assert json.loads(answer.data)["error"]["code"] == 400
        assert await catalog.refused() == []
    async with visitor(server.url) as operator:
        for stream in (REQUESTS, DEAD):
            assert await operator.client.jetstream().consumers_info(stream) == []


async def test_what_an_answer_carries_to_a_closed_subject(server: ShippedNats) -> None:
    """The config says so: an acknowledgement goes wherever it is asked for, but its text is the
    server's; and it commands neither the server nor a consumer."""
    closed = [f"{P}.command.scan", f"{P}.dead", f"{P}.work.ticket", f"{P}.event.audio.ready.x"]
    purge, ack = f"$JS.API.STREAM.PURGE.{REQUESTS}", f"$JS.ACK.{REQUESTS}.ingest.1.1.1.1.0"
    async with visitor(server.url) as operator, visitor(server.url_of("catalog")) as catalog:
        everything = await operator.client.subscribe(f"{P}.>")
        await operator.judged()
        for subject in (*closed, purge):
            await catalog.client.publish(f"{P}.request.track", b'{"mine":1}', reply=subject)
        assert await catalog.refused() == []
        await catalog.client.publish(f"{P}.request.track", b"{}", reply=ack)
        [refused] = await catalog.refused()
        assert "permissions violation for publish with reply" in refused
        # The last of them is stored, and with it what it could have purged.
        info = await operator.client.jetstream().stream_info(REQUESTS, subjects_filter=">")
        assert info.state.subjects == {f"{P}.request.track": 5, f"{P}.command.scan": 1}
        await operator.client.publish(f"{P}.the.end")
        while (message := await everything.next_msg(timeout=5)).subject != f"{P}.the.end":
            if message.subject in closed:
                assert set(json.loads(message.data)) == {"stream", "seq"}


async def test_what_a_consumer_carries_to_a_closed_subject(server: ShippedNats) -> None:
    """Events can be delivered into another stream, but keep their subject: none of our consumers
    takes them for a request or a command; and never into their own stream."""
    event = f"{P}.event.x"
    async with visitor(server.url) as operator, visitor(server.url_of("catalog")) as catalog:
        await operator.client.jetstream().publish(event, b"{}")
        js = catalog.client.jetstream(timeout=3)
        pull = ConsumerConfig(durable_name="pull", ack_policy=AckPolicy.NONE)
        await js.add_consumer(EVENTS, pull)
        reply, next_ = f"{P}.command.scan", f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.pull"
        await catalog.client.publish(next_, b"1", reply=reply)
        for subject in (f"{P}.dead", f"{P}.event.y"):
            push = ConsumerConfig(
                deliver_subject=subject,
                deliver_policy=DeliverPolicy.ALL,
                ack_policy=AckPolicy.NONE,
            )
            if subject == f"{P}.dead":
                await js.add_consumer(EVENTS, push)
            else:
                with pytest.raises(BadRequestError, match="cycle"):
                    await js.add_consumer(EVENTS, push)
        assert await catalog.refused() == []
        for stream in (REQUESTS, DEAD):
            found = await _first(operator, stream)
            assert (found.subject, found.data) == (event, b"{}")


async def _first(operator: Visitor, stream: str) -> Any:
    js = operator.client.jetstream()
    await eventually(lambda: js.stream_info(stream), lambda info: info.state.messages == 1)
    return await js.get_msg(stream, 1)


async def test_the_streams_of_an_old_volume_stay(tmp_path: Path) -> None:
    """The server as it was before it had a config, then with it, on the same storage."""
    before = Nats(tmp_path / "nats-before")
    await before.start()
    client = await nats.connect(before.url)
    await ensure_streams(client.jetstream())
    await client.jetstream().publish(f"{P}.event.x", b"kept")
    await client.close()
    await before.stop()
    server = ShippedNats(tmp_path / "nats")
    (before.folder / "js").rename(server.folder / "js")
    await server.start()
    try:
        async with visitor(server.url) as operator:
            js = operator.client.jetstream()
            assert (await js.get_msg(EVENTS, 1)).data == b"kept"
            assert (await js.stream_info(REQUESTS)).config.name == REQUESTS
    finally:
        await server.stop()
