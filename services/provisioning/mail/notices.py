"""What Amazon tells of a mail, as it is read: a pure function.

Nothing of people is kept: no address, no subject, only what happened, when, in whose account and to how many.

https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel


class Event(StrEnum):
    """What can happen to a mail."""

    SEND = "send"
    DELIVERY = "delivery"
    PERMANENT_BOUNCE = "permanent_bounce"
    TRANSIENT_BOUNCE = "transient_bounce"
    COMPLAINT = "complaint"
    SUPPRESSION = "suppression"
    """Not sent, as the account itself knows that the address bounces or complains; Amazon counts it for no rate."""
    REJECT = "reject"
    RENDERING_FAILURE = "rendering_failure"
    DELIVERY_DELAY = "delivery_delay"
    OPEN = "open"
    CLICK = "click"
    SUBSCRIPTION = "subscription"


class Oddity(StrEnum):
    """Why something that came in is counted for no tenant."""

    GREETING = "greeting"
    """Amazon's own word about the topic or the subscription, and no mail."""
    UNREADABLE = "unreadable"
    UNKNOWN_EVENT = "unknown_event"
    STRANGER = "stranger"
    """Of an account that is no tenant's, or no tenant's any more."""
    TOO_OLD = "too_old"
    """So old that it could not be told whether it was counted already."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something that happened.

    Attributes:
        account_id: who sent the mail.
        at: when it happened.
        sent_at: when the mail was sent.
        count: to how many recipients.
    """

    event: Event
    account_id: str
    at: datetime
    sent_at: datetime
    count: int


@dataclass(frozen=True, slots=True)
class Notice:
    """One message of the queue.

    Attributes:
        key: with the day, the same however often it is delivered.
        day: when it was said, by the teller's clock.
        says: what happened, or why nothing can be made of it.
    """

    key: UUID
    day: date
    says: Occurrence | Oddity


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, hide_input_in_errors=True)


class _Mail(_Part):
    timestamp: AwareDatetime
    sending_account_id: str = Field(pattern=r"^[0-9]{12}$")
    destination: list[Any] = Field(default_factory=list)


class _Details(_Part):
    """What is said besides of the one kind of event or the other."""

    timestamp: AwareDatetime | None = None
    recipients: list[Any] = Field(default_factory=list)
    bounced_recipients: list[Any] = Field(default_factory=list)
    bounce_type: str | None = None
    bounce_sub_type: str | None = None
    complaint_sub_type: str | None = None


_NAMES = {
    "Send": Event.SEND,
    "Delivery": Event.DELIVERY,
    "Bounce": Event.TRANSIENT_BOUNCE,
    "Complaint": Event.COMPLAINT,
    "Reject": Event.REJECT,
    "Rendering Failure": Event.RENDERING_FAILURE,
    "DeliveryDelay": Event.DELIVERY_DELAY,
    "Open": Event.OPEN,
    "Click": Event.CLICK,
    "Subscription": Event.SUBSCRIPTION,
}
_DETAILS = {"DeliveryDelay": "deliveryDelay", "Rendering Failure": "failure"}
_SUPPRESSED = "OnAccountSuppressionList"
_ENVELOPES = {"Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"}
_VALIDATED = "Successfully validated SNS topic"
_SUBSCRIBED = "AmazonSnsSubscriptionSucceeded"
_TIME: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)


def read(body: str, *, queued_at: datetime) -> Notice:
    """Read one message, as the topic wraps it or bare; whatever it is, something is returned.

    Args:
        queued_at: when the queue got it, for what does not say when it was said.
    """
    envelope = _object(body)
    if str(envelope.get("Type")) not in _ENVELOPES:
        says = _read(body)
        said_at = says.at if isinstance(says, Occurrence) else queued_at
        return Notice(_digest(body), said_at.date(), says)
    said_at = _time(envelope.get("Timestamp")) or queued_at
    key = _uuid(envelope.get("MessageId")) or _digest(body)
    return Notice(key, said_at.date(), _unwrapped(envelope))


def _unwrapped(envelope: Mapping[str, Any]) -> Occurrence | Oddity:
    if envelope["Type"] != "Notification":
        return Oddity.GREETING
    message = envelope.get("Message")
    return _read(message) if isinstance(message, str) else Oddity.UNREADABLE


def _read(text: str) -> Occurrence | Oddity:
    if text.startswith(_VALIDATED):
        return Oddity.GREETING
    document = _object(text)
    name = document.get("eventType") or document.get("notificationType")
    if name == _SUBSCRIBED:
        return Oddity.GREETING
    if not isinstance(name, str):
        return Oddity.UNREADABLE
    if name not in _NAMES:
        return Oddity.UNKNOWN_EVENT
    try:
        mail = _Mail.model_validate(document.get("mail"))
        details = _Details.model_validate(document.get(_DETAILS.get(name, name.lower())) or {})
        return _occurrence(_event(_NAMES[name], details), mail, details)
    except (ValidationError, OverflowError):
        return Oddity.UNREADABLE


def _event(event: Event, details: _Details) -> Event:
    if _SUPPRESSED in (details.bounce_sub_type, details.complaint_sub_type):
        return Event.SUPPRESSION
    if event is Event.TRANSIENT_BOUNCE and details.bounce_type == "Permanent":
        return Event.PERMANENT_BOUNCE
    return event


def _occurrence(event: Event, mail: _Mail, details: _Details) -> Occurrence:
    sent_at = mail.timestamp.astimezone(UTC)
    at = details.timestamp.astimezone(UTC) if details.timestamp else sent_at
    return Occurrence(event, mail.sending_account_id, at, sent_at, _count(event, mail, details))


def _count(event: Event, mail: _Mail, details: _Details) -> int:
    """Count recipients, as Amazon does, which bounce one by one and are sent to at once.

    A complaint is one, whoever it names: those are all who might have complained.
    """
    match event:
        case Event.SEND | Event.REJECT | Event.RENDERING_FAILURE:
            return max(len(mail.destination), 1)
        case Event.DELIVERY:
            return max(len(details.recipients), 1)
        case Event.PERMANENT_BOUNCE | Event.TRANSIENT_BOUNCE | Event.SUPPRESSION:
            return max(len(details.bounced_recipients), 1)
    return 1


def _object(text: str) -> Mapping[str, Any]:
    try:
        document = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return {}
    return document if isinstance(document, dict) else {}


def _time(said: Any) -> datetime | None:
    try:
        return _TIME.validate_python(said).astimezone(UTC)
    except (ValidationError, OverflowError):
        return None


def _uuid(said: Any) -> UUID | None:
    try:
        return UUID(said) if isinstance(said, str) else None
    except ValueError:
        return None


def _digest(body: str) -> UUID:
    return UUID(bytes=hashlib.sha256(body.encode(errors="replace")).digest()[:16])
