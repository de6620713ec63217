"""`python -m deploy.watch`: follow what becomes of workflows, as everybody outside may: a line of JSON for each event.

It uses the login of subscribers alone, with a queue of its own that goes when it ends.
"""

import argparse
import asyncio
import os
import sys

import aio_pika
import orjson
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError

from deploy.operator import MissingLoginsError, watcher_url
from shared.messaging.topology import STATUS_EXCHANGE

_CONNECT_SECONDS = 10.0


def main() -> int:
    """Follow until Ctrl-C and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.watch", description=__doc__)
    parser.add_argument("keys", nargs="*", default=["#"], help="binding keys, such as status.onboard.# or error.#")
    options = parser.parse_args()
    try:
        asyncio.run(follow(watcher_url(), options.keys))
    except KeyboardInterrupt:
        return 0
    except (MissingLoginsError, AMQPError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


async def follow(url: str, keys: list[str]) -> None:
    """Print events that fit any of the keys, for ever."""
    async with await aio_pika.connect_robust(url, timeout=_CONNECT_SECONDS) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(f"sub.watch-{os.getpid()}-{os.urandom(4).hex()}", exclusive=True)
        for key in keys:
            await queue.bind(STATUS_EXCHANGE, key)
        await queue.consume(_show, no_ack=True)
        await asyncio.Event().wait()


async def _show(message: AbstractIncomingMessage) -> None:
    line = {"key": message.routing_key, "id": message.message_id, "data": orjson.loads(message.body)}
    print(orjson.dumps(line).decode(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
