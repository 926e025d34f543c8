"""What the catalog server does over NATS, run in a container on its network with our image.

    catalog_server.py album ALBUM_ID     asks for it; prints the request's id when it is accepted
    catalog_server.py ready              prints each `audio.ready` that there ever was
    catalog_server.py refused SUBJECT    prints what NATS says to a publish there

The URL of NATS is in the environment, as NATS_URL.
"""

import asyncio
import json
import os
import sys
import uuid

import nats
from nats.aio.client import Client

_PREFIX = "pezzottify.download"
_STREAM = "PEZZOTTIFY_DOWNLOAD_EVENTS"
_ANSWER_S = 30


async def main(what: str, *rest: str) -> None:
    """Do one thing, print what came of it, and leave."""
    said: asyncio.Queue[str] = asyncio.Queue()

    async def on_error(error: Exception) -> None:
        said.put_nowait(str(error))

    client = await nats.connect(os.environ["NATS_URL"], error_cb=on_error, allow_reconnect=False)
    async with asyncio.timeout(2 * _ANSWER_S):
        match what:
            case "album":
                print(await album(client, *rest))
            case "ready":
                await ready(client)
            case "refused":
                await client.publish(rest[0], b"{}")
                print(await said.get())
    await client.close()


async def album(client: Client, album_id: str) -> str:
    """Ask for an album, and wait for the answer."""
    answers = await client.subscribe(f"{_PREFIX}.event.request.*")
    request_id = str(uuid.uuid4())
    request = {"v": 1, "request_id": request_id, "user_id": "42", "priority": 2}
    await client.jetstream().publish(
        f"{_PREFIX}.request.album",
        json.dumps(request | {"album_id": album_id}).encode(),
        headers={"Nats-Msg-Id": request_id},
    )
    while True:
        message = await answers.next_msg(timeout=_ANSWER_S)
        if json.loads(message.data)["request_id"] == request_id:
            return f"{message.subject.rpartition('.')[2]} {request_id}"


async def ready(client: Client) -> None:
    """Read the events from their beginning, as a catalog server that was away."""
    subscription = await client.jetstream().pull_subscribe(
        f"{_PREFIX}.event.audio.ready.*", stream=_STREAM
    )
    while True:
        try:
            messages = await subscription.fetch(50, timeout=2)
        except TimeoutError:  # nats-py raises its own, which is one, or asyncio's
            return
        for message in messages:
            print(message.data.decode())
            await message.ack()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
