from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest
from cloudevents.core.bindings.rabbitmq import RabbitMQMessage, from_binary_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from shared.clock import ManualClock
from shared.contracts import CATALOGUE
from shared.contracts.billing import AccountOpened, AccountRefused, OpenAccount, VoidAccount
from shared.contracts.tenant import ProductVersion, RegisterTenant, TenantActivated, TenantRegistered
from shared.messaging.event import (
    Event,
    Outgoing,
    UndecodableError,
    UnknownTypeError,
    decode,
    is_ask,
    join_batch,
    parse_batch,
)
from shared.messaging.outbox import _binary_parcel
from shared.messaging.topology import STATUS_EXCHANGE
from shared.testing.three_services import answered, asked, told

ASK = asked(OpenAccount(tenant_id="t1", customer_name="Žofie & 株式会社", plan="pro"))
REGISTER = RegisterTenant(
    tenant_id="t1",
    customer_name="Ünïcode \U0001f40d",
    tier="free",
    products=(ProductVersion(name="sample", version="2.0"),),
    email="ada@example.com",
    expiration=date(2027, 2, 28),
    tags={"key": "value"},
)
EVENTS = (
    ASK,
    asked(REGISTER),
    asked(VoidAccount(tenant_id="t1")),
    told(TenantActivated(tenant_id="t1")),
    told(TenantRegistered(tenant_id="t1", plan="pro", quotas={"calls": 10**12}, isolation="pool")),
    answered(AccountOpened(tenant_id="t1", account_id="a1"), ASK),
    answered(AccountRefused(tenant_id="t1", code="unknown_plan", detail="There is no plan x.", retryable=True), ASK),
)


def raw(**changes: Any) -> dict[str, Any]:
    """Return the JSON of an ask, changed; None removes an attribute."""
    encoded: dict[str, Any] = orjson.loads(ASK.encode())
    return {name: value for name, value in (encoded | changes).items() if value is not None}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_an_event_is_decoded_as_it_was_encoded(event: Event) -> None:
    assert decode(orjson.loads(event.encode())) == event


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_the_cloudevents_sdk_reads_the_same_in_an_event(event: Event) -> None:
    read = JSONFormat().read(CloudEvent, event.encode())

    assert (read.get_specversion(), read.get_datacontenttype()) == ("1.0", "application/json")
    assert_same(read, event)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_the_cloudevents_sdk_reads_the_same_in_a_status_message(event: Event) -> None:
    parcel = _binary_parcel(Outgoing(event.id, STATUS_EXCHANGE, "status.create.t1", event.encode()))
    headers = {name: str(value) for name, value in parcel.headers.items()}

    read = from_binary_event(RabbitMQMessage(headers, parcel.content_type, parcel.body))

    assert_same(read, event)
    assert (parcel.message_id, parcel.routing_key) == (str(event.id), "status.create.t1")
    assert not parcel.mandatory  # nobody outside need listen


def assert_same(read: Any, event: Event) -> None:
    assert read.get_id() == str(event.id)
    assert read.get_type() == event.type == event.message.routing_key()
    assert read.get_source() == f"/tenure/{event.publisher}"
    assert read.get_subject() == event.message.tenant_id
    assert read.get_time() == event.time
    assert read.get_extension("correlationid") == (str(event.workflow_id) if event.workflow_id else None)
    assert read.get_extension("workflowstep") == event.step
    assert read.get_extension("causationid") == (str(event.causation_id) if event.causation_id else None)
    assert type(event.message).model_validate(read.get_data()) == event.message


def test_what_the_cloudevents_sdk_writes_is_understood() -> None:
    written = CloudEvent(
        attributes={
            "id": str(ASK.id),
            "type": "billing.open_account.v1",
            "source": "/tenure/onboarding",
            "time": datetime(2026, 11, 21, tzinfo=UTC),
            "correlationid": str(ASK.workflow_id),
            "workflowstep": "billing",
        },
        data={"tenantId": "t1", "customerName": "Žofie & 株式会社", "plan": "pro"},
    )

    read = decode(orjson.loads(JSONFormat().write(written)))

    assert read == replace(ASK, time=datetime(2026, 11, 21, tzinfo=UTC))


def test_data_travels_in_camel_case() -> None:
    data = orjson.loads(asked(REGISTER).encode())["data"]

    assert data["customerName"] == REGISTER.customer_name
    assert data["expiration"] == "2027-02-28"
    assert data["products"] == [{"name": "sample", "version": "2.0"}]


def test_attributes_that_an_event_does_not_have_are_left_out() -> None:
    assert orjson.loads(EVENTS[3].encode()).keys().isdisjoint({"correlationid", "workflowstep", "causationid"})


def test_what_a_newer_publisher_adds_is_ignored() -> None:
    assert decode(raw(data=raw()["data"] | {"newField": {"deep": [1]}}, newattribute="x")) == ASK


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"id": None}, "id"),
        ({"type": None}, "type"),
        ({"source": None}, "source"),
        ({"time": None}, "time"),
        ({"data": None}, "data"),
        ({"type": ["billing.open_account.v1"]}, "is no text"),
        ({"id": "1"}, "UUID"),
        ({"id": 1}, "malformed"),
        ({"source": 1}, "malformed"),
        ({"time": "yesterday"}, "isoformat"),
        ({"time": 5}, "malformed"),
        ({"correlationid": "none"}, "UUID"),
        ({"causationid": 7}, "malformed"),
        ({"workflowstep": 5}, "5 is no text"),
        ({"data": "text"}, "data of billing.open_account.v1"),
        ({"data": {"tenantId": "t1", "plan": "pro"}}, "customerName: Field required"),
        ({"data": {"tenantId": "no such/id", "customerName": "A", "plan": "pro"}}, "tenantId"),
    ],
)
def test_a_malformed_event_is_refused_with_what_is_wrong(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UndecodableError, match=complaint):
        decode(raw(**changes))


def test_a_type_that_nobody_knows_is_told_from_nonsense() -> None:
    with pytest.raises(UnknownTypeError, match=r"unknown type billing\.open_account\.v2"):
        decode(raw(type="billing.open_account.v2"))


@pytest.mark.parametrize("value", [None, 1, "text", [], [1], True])
def test_json_that_is_no_object_is_refused(value: Any) -> None:
    with pytest.raises(UndecodableError):
        decode(value)


@pytest.mark.parametrize("events", [EVENTS[:0], EVENTS[:1], EVENTS])
def test_a_batch_holds_its_events_in_their_order(events: Sequence[Event]) -> None:
    body = join_batch(event.encode() for event in events)

    assert [decode(each) for each in parse_batch(body)] == list(events)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"{}", b"null", b"[NaN]", b'["\\ud800"]', b"[" * 5000])
def test_a_body_that_is_no_batch_is_refused(body: bytes) -> None:
    with pytest.raises(UndecodableError):
        parse_batch(body)


def test_somebody_waits_for_the_answer_to_an_ask_alone() -> None:
    assert [is_ask(event.message) for event in EVENTS] == [True, True, True, False, False, False, False]


@pytest.mark.parametrize("message", CATALOGUE.values(), ids=lambda message: message.routing_key())
def test_every_type_of_the_catalogue_is_a_fit_routing_key_and_belongs_to_its_owner(message: Any) -> None:
    owner, name, version = message.routing_key().split(".")

    assert owner == message.__module__.rpartition(".")[2]
    assert name.replace("_", "").isalnum()
    assert name == name.lower()
    assert version == "v1"


def test_time_is_written_as_rfc_3339() -> None:
    event = Event(id=UUID(int=7), publisher="tenant", time=ManualClock().now(), message=TenantActivated(tenant_id="t"))

    assert orjson.loads(event.encode())["time"] == "2026-01-01T00:00:00+00:00"
