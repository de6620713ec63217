"""The envelope: every message travels as a CloudEvent 1.0, alone in binary mode or as part of a JSON batch."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from opentelemetry.trace import Span
from pydantic import ValidationError

from shared.contracts import CATALOGUE
from shared.contracts.base import Ask, Message

BATCH = "application/cloudevents-batch+json"
"""The content type of several events in one AMQP message (CloudEvents JSON format 1.0, section 4)."""

SOURCE_PREFIX = "/tenure/"

_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACEPARENT_SIZE = 55
_BEFORE_TRACEPARENT = b',"traceparent":"'
_BEHIND_TRACEPARENT = b'"}'


class UnknownTypeError(Exception):
    """An event is of a type that this code does not know; newer code may."""


class UndecodableError(Exception):
    """The bytes are no event of the catalogue."""


@dataclass(frozen=True, slots=True)
class Event:
    """One message with its envelope.

    Attributes:
        id: unique per message; a repeated delivery has the same, a second attempt of a step another.
        publisher: the service that says it, from the CloudEvents ``source``.
        time: when it was made.
        workflow_id: the workflow on whose behalf it travels (``correlationid``).
        step: the step of that workflow (``workflowstep``); with ``workflow_id`` it identifies an operation.
        causation_id: the message that caused this one (``causationid``); for an answer, the ask.
        traceparent: the span of its making (``traceparent``, CloudEvents' extension for distributed tracing); for who
            handles it, the span of its handling. None where it is not traced.
    """

    id: UUID
    publisher: str
    time: datetime
    message: Message
    workflow_id: UUID | None = None
    step: str | None = None
    causation_id: UUID | None = None
    traceparent: str | None = None

    @property
    def type(self) -> str:
        """The CloudEvents type, which is the routing key."""
        return self.message.routing_key()

    def encode(self) -> bytes:
        """Render the event in the CloudEvents JSON format."""
        event = orjson.dumps(self._attributes() | {"data": self.message.model_dump(mode="json", by_alias=True)})
        return event if self.traceparent is None else with_traceparent(event, self.traceparent)

    def _attributes(self) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            "specversion": "1.0",
            "id": str(self.id),
            "type": self.type,
            "source": SOURCE_PREFIX + self.publisher,
            "subject": self.message.tenant_id,
            "time": self.time,
            "datacontenttype": "application/json",
        }
        if self.workflow_id is not None:
            attributes["correlationid"] = str(self.workflow_id)
        if self.step is not None:
            attributes["workflowstep"] = self.step
        if self.causation_id is not None:
            attributes["causationid"] = str(self.causation_id)
        return attributes


@dataclass(slots=True)
class Outgoing:
    """An event on its way out: what an outbox row holds.

    Attributes:
        event: the encoded CloudEvent; only its traceparent is added later, see `shared.tracing.messages.trace_making`.
        span: of its making, until it leaves; None where it is not traced.
    """

    id: UUID
    exchange: str
    routing_key: str
    event: bytes
    span: Span | None = field(default=None, compare=False, repr=False)


def with_traceparent(event: bytes, traceparent: str) -> bytes:
    """Add the last attribute to an encoded event that has none yet."""
    return event[:-1] + _BEFORE_TRACEPARENT + traceparent.encode() + _BEHIND_TRACEPARENT


def traceparent_in(event: bytes) -> str | None:
    """Return the traceparent that was added to an encoded event, if one was."""
    begin = -_TRACEPARENT_SIZE - len(_BEHIND_TRACEPARENT)
    if event[begin - len(_BEFORE_TRACEPARENT) : begin] != _BEFORE_TRACEPARENT:
        return None
    return event[begin : -len(_BEHIND_TRACEPARENT)].decode()


def decode(raw: Any) -> Event:
    """Read one event from its parsed JSON.

    Raises:
        UndecodableError: a required attribute is missing or wrong, or the data does not fit the type.
        UnknownTypeError: nothing of this type is in the catalogue.
    """
    try:
        message_class = _known(raw["type"])
        return Event(
            id=UUID(raw["id"]),
            publisher=raw["source"].removeprefix(SOURCE_PREFIX),
            time=datetime.fromisoformat(raw["time"]),
            message=message_class.model_validate(raw["data"]),
            workflow_id=_uuid(raw.get("correlationid")),
            step=_text(raw.get("workflowstep")),
            causation_id=_uuid(raw.get("causationid")),
            traceparent=_traceparent(raw.get("traceparent")),
        )
    except KeyError as error:
        raise UndecodableError(f"missing attribute {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "/".join(str(part) for part in first["loc"])
        raise UndecodableError(f"data of {raw['type']}: {place}: {first['msg']}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UndecodableError(f"malformed event: {error}") from error


def parse_batch(body: bytes) -> Sequence[Any]:
    """Split an AMQP body in batch format into the parsed JSON of its events.

    Raises:
        UndecodableError: it is not a JSON array.
    """
    try:
        events = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UndecodableError(f"body is not JSON: {error}") from error
    if not isinstance(events, list):
        raise UndecodableError("body is not a batch of events")
    return events


def join_batch(events: Iterable[bytes]) -> bytes:
    """Make one AMQP body of encoded events."""
    return b"[" + b",".join(events) + b"]"


def is_ask(message: Message) -> bool:
    """Tell whether somebody is waiting for an answer to this message."""
    return isinstance(message, Ask)


def _known(name: Any) -> type[Message]:
    if not isinstance(name, str):
        raise TypeError(f"type {name!r} is no text")
    if name not in CATALOGUE:
        raise UnknownTypeError(f"unknown type {name}")
    return CATALOGUE[name]


def _uuid(text: str | None) -> UUID | None:
    return UUID(text) if text is not None else None


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _traceparent(value: Any) -> str | None:
    """Take what is no traceparent for none: no message is worse for how it is traced."""
    return value if isinstance(value, str) and _TRACEPARENT.fullmatch(value) else None
