"""`python -m deploy.backup.parked`: what services have parked, as lines of JSON, and those lines as parked messages.

``read`` writes a line for every parked message of every service, which stays where it is; ``put`` parks the messages of
the lines that it reads, where nothing is parked.
"""

import argparse
import asyncio
import base64
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import aio_pika
import orjson
from aio_pika.exceptions import AMQPError

from deploy.operator import MissingLoginsError, broker_url
from deploy.parking import FORGED, Parked, Parking, open_parking
from shared.contracts import SERVICES
from shared.messaging.admission import ATTEMPT, ORIGIN
from shared.messaging.event import BATCH
from shared.messaging.ladder import DETAIL, PARKED_AT, REASON, USER


class NotEmptyError(Exception):
    """There are messages already where some were to be put."""


def main() -> int:
    """Do what the command line asks and return the exit code: 1 for what was refused, 2 if the broker is away."""
    parser = argparse.ArgumentParser(prog="deploy.backup.parked", description=__doc__)
    parser.add_argument("what", choices=("read", "put"))
    options = parser.parse_args()
    try:
        if options.what == "read":
            sys.stdout.buffer.writelines(asyncio.run(read_all()))
        else:
            print(f"{asyncio.run(put_all(sys.stdin.buffer))} messages parked again")
    except NotEmptyError as error:
        print(error, file=sys.stderr)
        return 1
    except (MissingLoginsError, OSError, TimeoutError, AMQPError) as error:
        print(f"The broker could not be asked: {error or type(error).__name__}", file=sys.stderr)
        return 2
    return 0


async def read_all() -> Sequence[bytes]:
    """Return every parked message as a line."""
    lines: list[bytes] = []
    for service in SERVICES:
        async with open_parking(service, broker_url(service)) as parking:
            lines += [_line(parking, parked) async for parked in parking.messages()]
    return lines


async def put_all(lines: Iterable[bytes]) -> int:
    """Park messages that were read once, and return how many those are.

    Raises:
        NotEmptyError: a service has parked something already, so nothing of its is put.
    """
    count = 0
    for service, records in groupby(map(orjson.loads, lines), key=lambda record: str(record["service"])):
        async with open_parking(service, broker_url(service)) as parking:
            if parking.waiting:
                raise NotEmptyError(f"{service} has parked {parking.waiting} messages already.")
            for record in records:
                await parking.put(_message(record))
                count += 1
    return count


def _line(parking: Parking, parked: Parked) -> bytes:
    """Return all that is known of a message; what the broker noted of it becomes the headers that services write."""
    record = {
        "service": parking.service,
        "id": parked.message.message_id,
        "type": parked.message.content_type or BATCH,
        "headers": {
            REASON: FORGED if parking.is_forged(parked) else parked.reason,
            DETAIL: parked.detail,
            PARKED_AT: parked.parked_at,
            USER: parked.login,
            ORIGIN: parked.origin,
            ATTEMPT: parked.attempts,
        },
        "body": base64.b64encode(parked.message.body).decode("ascii"),
    }
    return orjson.dumps(record) + b"\n"


def _message(record: Mapping[str, Any]) -> aio_pika.Message:
    return aio_pika.Message(
        base64.b64decode(record["body"]),
        content_type=record["type"],
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=record["id"],
        headers=record["headers"],
    )


if __name__ == "__main__":
    sys.exit(main())
