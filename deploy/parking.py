"""What an operator does with messages that a service could not handle: look at them, send them again, or drop them.

    make parking ARGS="list"                           what waits where, and why
    make parking ARGS="show billing --id 0198"         one message in full; the beginning of its id will do
    make parking ARGS="replay billing --all"           back to the service's work queue, as if for the first time
    make parking ARGS="discard billing --id 0198"      remove it for good, after a question

A message leaves parking only after the broker has confirmed its copy in the work queue. Whoever is killed in between
leaves it in both, and the service's inbox knows it when it comes twice. Forged messages are never replayed: sent again
they would carry the service's own login, and be believed.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aio_pika
import orjson
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import AMQPError

from deploy.operator import MissingLoginsError, broker_url
from shared.contracts import SERVICES
from shared.messaging.admission import ATTEMPT, ORIGIN
from shared.messaging.event import BATCH
from shared.messaging.ladder import DETAIL, PARKED_AT, REASON, USER
from shared.messaging.rabbitmq import login_of
from shared.messaging.topology import USAGE_EXCHANGE, USAGE_QUEUE, parking_queue_of, publisher_of, retry_exchange_of

FORGED = "forged"
"""The reason of messages that are never replayed."""

_SECONDS = 15.0
_LISTED = 100


class RefusedError(Exception):
    """What was asked for is not done; the message says why."""


@dataclass(frozen=True)
class Parked:
    """A parked message, held until it is settled or the connection closes.

    Attributes:
        id: what an operator names it by.
        origin: the exchange it first came through; empty if nobody knows.
        login: who published it.
    """

    message: AbstractIncomingMessage

    @property
    def id(self) -> str:
        """What an operator names it by; one that came without an id goes by its place in the queue."""
        return self.message.message_id or f"nameless-{self.message.delivery_tag}"

    @property
    def reason(self) -> str:
        """Why it is here; the broker itself parks what was delivered too often (``delivery_limit``)."""
        return self._text(REASON) or str(self._death.get("reason", "unknown"))

    @property
    def detail(self) -> str:
        """The sentence for the operator."""
        return self._text(DETAIL)

    @property
    def parked_at(self) -> str:
        """When it was parked, RFC 3339."""
        return self._text(PARKED_AT) or str(self._death.get("time", ""))

    @property
    def attempts(self) -> int:
        """How often it had been tried again before."""
        tried = self.message.headers.get(ATTEMPT, 0)
        return tried if isinstance(tried, int) else 0

    @property
    def origin(self) -> str:
        """The exchange it first came through; empty if nobody knows."""
        if self.is_usage:
            return USAGE_EXCHANGE
        return self._text(ORIGIN) or str(self._death.get("exchange", ""))

    @property
    def is_usage(self) -> bool:
        """Whether it is of an application and not of a service.

        What the broker itself has parked still has the headers that the application gave it: nothing in them counts.
        """
        if self._death:
            return self._death.get("queue") == USAGE_QUEUE
        return self._text(ORIGIN) == USAGE_EXCHANGE

    @property
    def login(self) -> str:
        """The login that had published it; of a message that failed nothing but the service's own is left."""
        return self._text(USER) or self.message.user_id or ""

    @property
    def types(self) -> str:
        """The types of the events in it."""
        return ", ".join(dict.fromkeys(str(event.get("type", "?")) for event in self.events())) or "?"

    def events(self) -> Sequence[dict[str, Any]]:
        """Return the events in the body, none if it cannot be read."""
        try:
            content = orjson.loads(self.message.body)
        except orjson.JSONDecodeError:
            return []
        events = content if isinstance(content, list) else [content]
        return [event for event in events if isinstance(event, dict)]

    @property
    def _death(self) -> dict[str, Any]:
        deaths: Any = self.message.headers.get("x-death") or [{}]
        return dict(deaths[0])

    def _text(self, header: str) -> str:
        value = self.message.headers.get(header)
        return value if isinstance(value, str) else ""


class Parking:
    """One service's parking queue, seen with the service's own login.

    Reading holds messages without settling them. What is neither replayed nor discarded goes back to its place when
    the connection closes, also when this program is killed.
    """

    def __init__(self, service: str, login: str, channel: AbstractChannel, queue: AbstractQueue) -> None:
        self.service = service
        self._login = login
        self._channel = channel
        self._queue = queue

    @property
    def waiting(self) -> int:
        """How many messages were parked when the connection was opened."""
        return self._queue.declaration_result.message_count or 0

    async def messages(self) -> AsyncIterator[Parked]:
        """Take what is parked, one after the other; not what comes while we are at it."""
        for _ in range(self.waiting):
            message = await self._queue.get(fail=False, timeout=_SECONDS)
            if message is None:
                return
            yield Parked(message)

    async def replay(self, parked: Parked) -> None:
        """Send a message to the queue it was in as if it came for the first time, then remove it from parking.

        Raises:
            RefusedError: it is forged, or nobody knows which exchange it came through.
        """
        if self.is_forged(parked):
            raise RefusedError("it is forged; sent again it would carry the service's own login and be believed")
        if not parked.origin:
            raise RefusedError("nobody knows which exchange it came through; have its publisher send it again")
        exchange = await self._channel.get_exchange(retry_exchange_of(self.service), ensure=False)
        key = "usage" if parked.is_usage else "work"
        await exchange.publish(self._copy(parked), key, mandatory=True, timeout=_SECONDS)
        await parked.message.ack()

    async def discard(self, parked: Parked) -> None:
        """Remove a message for good."""
        await parked.message.ack()

    async def put(self, message: aio_pika.Message) -> None:
        """Park a message that was parked before, with the headers that it had."""
        message.user_id = self._login
        exchange = await self._channel.get_exchange(retry_exchange_of(self.service), ensure=False)
        await exchange.publish(message, "parking", mandatory=True, timeout=_SECONDS)

    def is_forged(self, parked: Parked) -> bool:
        """Tell whether the login was not the publisher's; what the broker itself parked, the service never judged."""
        if parked.is_usage:
            return False  # an application may say whatever it likes there, and is believed of usage alone
        if parked.message.headers.get(ORIGIN) or parked.message.headers.get(REASON):
            return parked.reason == FORGED
        return parked.message.user_id not in {publisher_of(parked.origin), self._login}

    def _copy(self, parked: Parked) -> aio_pika.Message:
        return aio_pika.Message(
            parked.message.body,
            content_type=parked.message.content_type or BATCH,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=parked.message.message_id,
            user_id=self._login,
            headers={ATTEMPT: 0, ORIGIN: parked.origin},
        )


@asynccontextmanager
async def open_parking(service: str, url: str) -> AsyncIterator[Parking]:
    """Connect to a service's parking queue.

    Args:
        url: the service's own login.
    """
    async with await aio_pika.connect(url, timeout=_SECONDS) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        queue = await channel.declare_queue(parking_queue_of(service), passive=True, timeout=_SECONDS)
        yield Parking(service, login_of(url), channel, queue)
        # Closing waits for the broker's answer, so acknowledgements that were sent have arrived.


async def chosen(parking: Parking, beginning: str | None) -> AsyncIterator[Parked]:
    """Yield all parked messages, or the one whose id begins so.

    Raises:
        RefusedError: none does, or several.
    """
    if beginning is None:
        async for parked in parking.messages():
            yield parked
        return
    found = [parked async for parked in parking.messages() if parked.id.startswith(beginning)]
    if not found:
        raise RefusedError(f"No message of {parking.service} has an id that begins with {beginning}.")
    if len(found) > 1:
        raise RefusedError(f"{len(found)} ids begin with {beginning}: {', '.join(each.id for each in found)}")
    yield found[0]


async def _list(services: Sequence[str], limit: int) -> int:
    for service in services:
        async with open_parking(service, broker_url(service)) as parking:
            print(f"{service}: {parking.waiting or 'nothing'} parked")
            shown = 0
            async for parked in parking.messages():
                print(_summary(parked))
                shown += 1
                if shown == limit and parking.waiting > limit:
                    print(f"  ... and {parking.waiting - limit} more (--limit)")
                    break
    return 0


async def _show(service: str, beginning: str | None) -> int:
    async with open_parking(service, broker_url(service)) as parking:
        async for parked in chosen(parking, beginning):
            print(_summary(parked))
            print(f"    origin   {parked.origin or 'unknown'}")
            print(f"    type     {parked.message.content_type or 'unknown'}")
            for name, value in sorted(parked.message.headers.items()):
                print(f"    header   {name}: {value!r}")
            print(_body(parked))
    return 0


async def _replay(service: str, beginning: str | None) -> int:
    replayed = refused = 0
    async with open_parking(service, broker_url(service)) as parking:
        async for parked in chosen(parking, beginning):
            try:
                await parking.replay(parked)
            except RefusedError as error:
                refused += 1
                print(f"  {parked.id}  stays: {error}")
            else:
                replayed += 1
                print(f"  {parked.id}  sent to {service} again ({parked.types})")
    print(f"{replayed} replayed, {refused} left where they are.")
    return 1 if refused and beginning is not None else 0


async def _discard(service: str, beginning: str | None, *, agreed: bool) -> int:
    async with open_parking(service, broker_url(service)) as parking:
        selected = [parked async for parked in chosen(parking, beginning)]
        for parked in selected:
            print(_summary(parked))
        if not selected:
            print(f"{service}: nothing is parked.")
            return 0
        if not agreed and not await _agrees(len(selected)):
            print("Nothing was removed.")
            return 1
        for parked in selected:
            await parking.discard(parked)
            print(f"removed {parked.id}:\n{_body(parked)}")
    print(f"{len(selected)} removed.")
    return 0


async def _agrees(count: int) -> bool:
    question = f"Remove {'this message' if count == 1 else f'these {count} messages'} for good? [y/N] "
    try:
        return (await asyncio.to_thread(input, question)).strip().lower() in {"y", "yes"}
    except EOFError:
        return False


def _summary(parked: Parked) -> str:
    first = f"  {parked.id}  {parked.reason:<11}  {parked.types}"
    second = f"    parked {parked.parked_at or 'at an unknown time'}, attempts {parked.attempts}, login {parked.login}"
    return "\n".join(filter(None, (first, second, f"    {parked.detail}" if parked.detail else "")))


def _body(parked: Parked) -> str:
    events = parked.events()
    if not events:
        return f"    {parked.message.body!r}"
    return "\n".join(orjson.dumps(event, option=orjson.OPT_INDENT_2).decode() for event in events)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="deploy.parking", description="Look after messages that could not be handled."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="what waits where, and why")
    listing.add_argument("service", nargs="?", choices=SERVICES)
    listing.add_argument("--limit", type=int, default=_LISTED, help="how many of each service are shown")
    for name, description in (
        ("show", "messages in full"),
        ("replay", "back to the work queue"),
        ("discard", "remove for good"),
    ):
        command = commands.add_parser(name, help=description)
        command.add_argument("service", choices=SERVICES)
        which = command.add_mutually_exclusive_group(required=True)
        which.add_argument("--id", help="the message's id, or the beginning of it")
        which.add_argument("--all", action="store_true")
        if name == "discard":
            command.add_argument("--yes", action="store_true", help="do not ask")
    return parser.parse_args()


async def _run(options: argparse.Namespace) -> int:
    match options.command:
        case "list":
            return await _list([options.service] if options.service else SERVICES, options.limit)
        case "show":
            return await _show(options.service, options.id)
        case "replay":
            return await _replay(options.service, options.id)
        case _:
            return await _discard(options.service, options.id, agreed=options.yes)


def main() -> int:
    """Do what the command line asks and return the exit code: 1 for what was refused, 2 if the broker is away."""
    try:
        return asyncio.run(_run(_arguments()))
    except RefusedError as error:
        print(error)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; what was not settled is parked as before.")
        return 130
    except (MissingLoginsError, OSError, TimeoutError, AMQPError) as error:
        print(f"The broker could not be asked: {error or type(error).__name__}")
        return 2


if __name__ == "__main__":
    sys.exit(main())
