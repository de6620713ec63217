"""Usage events: CloudEvents 1.0 in JSON, and what is true of each before anything is known of meters."""

import re
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Self

import orjson

from services.metrics.recording.reading import LARGEST_DATA, written
from services.metrics.recording.refusal import RefusedError

LATEST: Final = timedelta(days=35)
"""How long after it happened an event is taken."""

EARLIEST: Final = timedelta(minutes=5)
"""How long before it happens an event is taken, because clocks differ."""

LONGEST_TEXT: Final = 255
"""The most characters of an event's id, source and type."""

_DIGEST_BYTES = 16
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Event(NamedTuple):
    """Something that a tenant has used.

    Attributes:
        happened_at: in UTC; when it was received, where the event does not say.
        data: what meters take their values from.
        json: the data as canonical JSON.
        key: what the event is told apart by within the tenant: a hash of its source and its id.
        digest: a hash of all else that it says.
    """

    tenant_id: str
    source: str
    id: str
    type: str
    happened_at: datetime
    data: dict[str, Any]
    json: bytes
    key: bytes
    digest: bytes


class Reception(NamedTuple):
    """How events came.

    Attributes:
        tenant_id: of whoever sends them; None for operators, whose events name a tenant each.
        now: when they were received.
        oldest: when the first happened that is taken.
        newest: when the last happens that is taken.
    """

    tenant_id: str | None
    now: datetime
    oldest: datetime
    newest: datetime

    @classmethod
    def at(cls, now: datetime, *, tenant_id: str | None) -> Self:
        """Make it of events that come now."""
        return cls(tenant_id, now, now - LATEST, now + EARLIEST)


def parse(document: Any, reception: Reception) -> Event:
    """Make an event of a JSON value (CloudEvents 1.0, JSON format 1.0.2).

    Raises:
        RefusedError: it is no event, it is another tenant's, or of a time that is not taken.
    """
    if not isinstance(document, dict):
        raise _invalid("", "must be a JSON object")
    if document.get("specversion") != "1.0":
        raise _invalid("specversion", "must be 1.0")
    source, id_, type_ = _text(document, "source"), _text(document, "id"), _text(document, "type")
    tenant_id = _tenant(document, reception.tenant_id)
    time = _time(document.get("time"), reception)
    data = document.get("data")
    if not isinstance(data, dict):
        if data is not None:
            raise _invalid("data", "must be a JSON object")
        data = {}
    json = written(data)
    if len(json) > LARGEST_DATA:
        raise _invalid("data", f"must have at most {LARGEST_DATA} bytes")
    return Event(
        tenant_id=tenant_id,
        source=source,
        id=id_,
        type=type_,
        happened_at=reception.now if time is None else time,
        data=data,
        json=json,
        key=key_of(source, id_),
        digest=_hash([type_, time, orjson.Fragment(json)]),
    )


def key_of(source: str, id_: str) -> bytes:
    """Return what an event is told apart by within its tenant; of no two sources and ids the same."""
    return _hash([source, id_])


def _hash(parts: list[Any]) -> bytes:
    return blake2b(orjson.dumps(parts), digest_size=_DIGEST_BYTES).digest()


def _invalid(name: str, complaint: str) -> RefusedError:
    field = f"`{name}`" if name else "The event"
    return RefusedError("invalid_event", f"{field} {complaint}.", f"/{name}" if name else "")


def _text(document: dict[str, Any], name: str) -> str:
    text = document.get(name)
    if isinstance(text, str) and 0 < len(text) <= LONGEST_TEXT:
        return text
    if text is None:
        raise _invalid(name, "is required")
    raise _invalid(name, f"must be text of 1 to {LONGEST_TEXT} characters")


def _tenant(document: dict[str, Any], tenant_id: str | None) -> str:
    """Return whose event it is: the credential's, whatever the event says."""
    subject = document.get("subject")
    if tenant_id is not None:
        if subject is None or subject == tenant_id:
            return tenant_id
        raise RefusedError("wrong_tenant", "`subject` must be left out, or be your own tenant.", "/subject")
    if subject is None:
        raise _invalid("subject", "is required: the tenant whose usage it is")
    if not isinstance(subject, str) or not _TENANT.fullmatch(subject):
        raise _invalid("subject", "must be the id of a tenant")
    return subject


def _time(text: Any, reception: Reception) -> datetime | None:
    if text is None:
        return None
    try:
        time = _moment(text)
    except (ValueError, OverflowError):
        raise _invalid("time", "must be a time with offset like 2026-03-01T12:00:00Z") from None
    if time < reception.oldest:
        raise RefusedError("too_late", f"`time` must be at most {LATEST.days} days ago.", "/time")
    if time > reception.newest:
        minutes = EARLIEST // timedelta(minutes=1)
        raise RefusedError("in_the_future", f"`time` must be at most {minutes} minutes ahead.", "/time")
    return time


def _moment(text: Any) -> datetime:
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise ValueError("not as RFC 3339 has it")
    return datetime.fromisoformat(text.upper()).astimezone(UTC)
