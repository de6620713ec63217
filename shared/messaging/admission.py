"""What may come in: known events, said by the service whose exchange they came through and whose login signed them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from shared.messaging.barrier import key_of
from shared.messaging.bus import Delivery
from shared.messaging.event import BATCH, Event, UndecodableError, UnknownTypeError, decode, is_ask, parse_batch
from shared.messaging.topology import Manifest, exchange_of, publisher_of, retry_exchange_of

ATTEMPT = "tenure-attempt"
"""Header: how often the message was tried before, on our own ladder."""

ORIGIN = "tenure-origin"
"""Header: the exchange that a message on the ladder first came through; only the service itself can write it."""


TRIED = "tenure-tried"
"""Header: the traceparent of the last attempt, where that was traced."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event that may be handled.

    Attributes:
        raw: its JSON, to be published again when it has to wait.
        origin: the exchange it first came through.
        attempt: how often it was tried before.
        tried: the traceparent of the last time, where that was traced.
    """

    event: Event
    raw: bytes
    origin: str
    attempt: int
    tried: str | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event of a type without a handler here: in the middle of a deployment, one for the code that comes.

    Attributes:
        raw: its JSON, to be published again.
        origin: the exchange it first came through.
        attempt: how often it was looked at before.
        detail: a sentence for the operator.
    """

    raw: bytes
    origin: str
    attempt: int
    detail: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """What will never be handled, with the reason, for parking."""

    body: bytes
    content_type: str
    reason: str
    detail: str
    origin: str
    user_id: str


class Admission:
    """Decodes deliveries and checks who says what.

    Args:
        service: who listens.
        logins: the broker login of each publisher; publishers that are missing log in under their own names.
        heard: the routing keys that the service has handlers for.
    """

    def __init__(self, *, service: str, manifest: Manifest, logins: Mapping[str, str], heard: Collection[str]) -> None:
        self._service = service
        self._manifest = manifest
        self._logins = logins
        self._heard = heard

    def admit(self, delivery: Delivery) -> Iterator[Arrival | Unknown | Rejected]:
        """Split a delivery into its events, each admitted, unknown or rejected by itself."""
        try:
            origin, attempt = self._origin(delivery)
        except _ForgedError as error:
            yield _rejected(delivery, delivery.body, "forged", str(error), delivery.exchange)
            return
        try:
            raws = parse_batch(delivery.body) if delivery.content_type == BATCH else [orjson.loads(delivery.body)]
        except (UndecodableError, orjson.JSONDecodeError) as error:
            yield _rejected(delivery, delivery.body, "undecodable", str(error), origin)
        else:
            for raw in raws:
                yield self._admit(delivery, raw, origin, attempt)

    def _admit(self, delivery: Delivery, raw: Any, origin: str, attempt: int) -> Arrival | Unknown | Rejected:
        try:
            body = orjson.dumps(raw)
        except orjson.JSONEncodeError as error:  # nested deeper than orjson writes, which is less than it reads
            return _rejected(delivery, delivery.body, "undecodable", str(error), origin)
        try:
            event = decode(raw)
            if is_ask(event.message):
                key_of(event)
            self._check_publisher(event, origin)
        except _ForgedError as error:
            return _rejected(delivery, body, "forged", str(error), origin)
        except UndecodableError as error:
            return _rejected(delivery, body, "undecodable", str(error), origin)
        except UnknownTypeError as error:
            return Unknown(raw=body, origin=origin, attempt=attempt, detail=str(error))
        if event.type not in self._heard:
            detail = f"{self._service} has no handler for {event.type}"
            return Unknown(raw=body, origin=origin, attempt=attempt, detail=detail)
        return Arrival(event=event, raw=body, origin=origin, attempt=attempt, tried=_tried(delivery, attempt))

    def _origin(self, delivery: Delivery) -> tuple[str, int]:
        """Find out whose message this is: from its exchange or, when it comes off our own ladder, from our headers."""
        if delivery.exchange in {"", retry_exchange_of(self._service)}:
            self._check_login(delivery, self._service)
            origin, attempt = delivery.headers.get(ORIGIN), delivery.headers.get(ATTEMPT)
            if not isinstance(origin, str) or not isinstance(attempt, int):
                raise _ForgedError("a message on the retry ladder without its headers")
            return origin, attempt
        self._check_login(delivery, publisher_of(delivery.exchange))
        return delivery.exchange, 0

    def _check_login(self, delivery: Delivery, publisher: str) -> None:
        expected = self._logins.get(publisher, publisher)
        if delivery.user_id != expected:
            raise _ForgedError(f"login {delivery.user_id} published as {publisher} (expected login {expected})")

    def _check_publisher(self, event: Event, origin: str) -> None:
        if origin != exchange_of(event.publisher):
            raise _ForgedError(f"source {event.publisher} came through {origin}")
        if not self._manifest.may_say(event.publisher, event.type):
            raise _ForgedError(f"{event.publisher} does not say {event.type}")


def _tried(delivery: Delivery, attempt: int) -> str | None:
    tried = delivery.headers.get(TRIED) if attempt else None
    return tried if isinstance(tried, str) else None


def _rejected(delivery: Delivery, body: bytes, reason: str, detail: str, origin: str) -> Rejected:
    return Rejected(
        body=body,
        content_type=delivery.content_type if body is delivery.body else "application/cloudevents+json",
        reason=reason,
        detail=detail,
        origin=origin,
        user_id=delivery.user_id or "",
    )


class _ForgedError(Exception):
    """Somebody says what only another may say."""
