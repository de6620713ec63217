from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest

from shared.contracts.billing import AccountOpened, OpenAccount, SubscriptionStarted, VoidAccount
from shared.contracts.tenant import RegisterTenant, TenantActivated
from shared.messaging.admission import ATTEMPT, ORIGIN, Admission, Arrival, Rejected, Unknown
from shared.messaging.bus import Delivery
from shared.messaging.event import BATCH, Event, decode
from shared.messaging.topology import exchange_of, retry_exchange_of
from shared.testing.three_services import MANIFEST, asked, parcel_of, told

ASK = asked(OpenAccount(tenant_id="t1", customer_name="Ada", plan="pro"))
OTHER_ASK = asked(OpenAccount(tenant_id="t2", customer_name="Bob", plan="pro"))
NEWS = told(TenantActivated(tenant_id="t1"))
SINGLE = "application/cloudevents+json"


def admission(logins: Mapping[str, str] | None = None) -> Admission:
    return Admission(
        service="billing",
        manifest=MANIFEST,
        logins=logins or {},
        heard=[ASK.type, NEWS.type, "billing.void_account.v1"],
    )


def delivery(*events: Event, **changes: Any) -> Delivery:
    """Return what the broker delivers when the publisher of the events sends them."""
    parcel = parcel_of(*events)
    honest = Delivery(
        tag=1,
        exchange=parcel.exchange,
        routing_key=parcel.routing_key,
        user_id=events[0].publisher,
        body=parcel.body,
        content_type=parcel.content_type,
        message_id=parcel.message_id,
        headers=parcel.headers,
        redelivered=False,
    )
    return replace(honest, **changes)


def admit(arrived: Delivery, logins: Mapping[str, str] | None = None) -> list[Arrival | Unknown | Rejected]:
    return list(admission(logins).admit(arrived))


def the_rejected(arrived: Delivery) -> Rejected:
    [rejected] = admit(arrived)
    assert isinstance(rejected, Rejected)
    return rejected


def the_unknown(arrived: Delivery) -> Unknown:
    [unknown] = admit(arrived)
    assert isinstance(unknown, Unknown)
    return unknown


def test_an_honest_batch_is_admitted_event_by_event() -> None:
    arrivals = admit(delivery(ASK, OTHER_ASK))

    assert [(each.event, each.origin, each.attempt) for each in arrivals if isinstance(each, Arrival)] == [
        (ASK, "tenure.onboarding", 0),
        (OTHER_ASK, "tenure.onboarding", 0),
    ]


def test_an_arrival_keeps_the_json_that_it_was_made_of() -> None:
    [arrival] = admit(delivery(ASK))

    assert isinstance(arrival, Arrival)
    assert decode(orjson.loads(arrival.raw)) == ASK


def test_an_event_may_also_come_alone() -> None:
    [arrival] = admit(delivery(NEWS, body=NEWS.encode(), content_type=SINGLE))

    assert isinstance(arrival, Arrival)
    assert arrival.event == NEWS


def test_an_empty_batch_is_nothing() -> None:
    assert admit(delivery(ASK, body=b"[]")) == []


def test_one_bad_event_spoils_no_other_of_its_batch() -> None:
    body = orjson.dumps([orjson.loads(ASK.encode()), {"no": "event"}, orjson.loads(OTHER_ASK.encode())])

    first, bad, last = admit(delivery(ASK, body=body))

    assert isinstance(first, Arrival)
    assert isinstance(last, Arrival)
    assert (first.event, last.event) == (ASK, OTHER_ASK)
    assert isinstance(bad, Rejected)
    assert (bad.reason, bad.body, bad.content_type) == ("undecodable", b'{"no":"event"}', SINGLE)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"\x00\xff", BATCH),
        (b"{}", BATCH),
        (b"", SINGLE),
        (b"[" * 300 + b"]" * 300, BATCH),
        (b'[{"data":' + b"[" * 300 + b"]" * 300 + b"}]", BATCH),
    ],
)
def test_what_is_no_event_is_rejected_as_it_came(body: bytes, content_type: str) -> None:
    rejected = the_rejected(delivery(ASK, body=body, content_type=content_type))

    assert (rejected.reason, rejected.body, rejected.content_type) == ("undecodable", body, content_type)
    assert (rejected.origin, rejected.user_id) == ("tenure.onboarding", "onboarding")
    assert rejected.detail


def test_an_ask_for_no_step_is_rejected() -> None:
    rejected = the_rejected(delivery(replace(ASK, step=None)))

    assert (rejected.reason, rejected.detail) == ("undecodable", "billing.open_account.v1 names no workflow step")


def test_a_type_without_a_handler_is_unknown() -> None:
    deaf = Admission(service="billing", manifest=MANIFEST, logins={}, heard=[ASK.type])

    [unknown] = deaf.admit(delivery(NEWS))

    detail = "billing has no handler for tenant.tenant_activated.v1"
    assert unknown == Unknown(raw=NEWS.encode(), origin="tenure.tenant", attempt=0, detail=detail)


def test_a_type_that_is_not_in_the_catalogue_is_unknown_amid_others_that_are() -> None:
    newer = orjson.loads(ASK.encode()) | {"type": "billing.open_account.v2", "data": {"of": "another shape"}}
    batch = delivery(ASK, body=b"[" + ASK.encode() + b"," + orjson.dumps(newer) + b"]", content_type=BATCH)

    arrival, unknown = admit(batch)

    assert isinstance(arrival, Arrival)
    detail = "unknown type billing.open_account.v2"
    assert unknown == Unknown(raw=orjson.dumps(newer), origin="tenure.onboarding", attempt=0, detail=detail)


def test_what_is_unknown_keeps_its_place_on_the_ladder() -> None:
    waited = delivery(
        ASK,
        exchange="",
        user_id="billing",
        body=b"[" + orjson.dumps(orjson.loads(ASK.encode()) | {"type": "newer"}) + b"]",
        headers={ATTEMPT: 3, ORIGIN: "tenure.onboarding"},
    )

    unknown = the_unknown(waited)

    assert (unknown.attempt, unknown.origin) == (3, "tenure.onboarding")


def test_an_unknown_type_with_the_wrong_login_is_forged() -> None:
    newer = orjson.dumps(orjson.loads(ASK.encode()) | {"type": "newer"})

    assert the_rejected(delivery(ASK, body=b"[" + newer + b"]", content_type=BATCH, user_id="x")).reason == "forged"


@pytest.mark.parametrize(
    ("forgery", "detail"),
    [
        pytest.param(
            delivery(ASK, user_id="tenant"),
            "login tenant published as onboarding",
            id="another's login on its exchange",
        ),
        pytest.param(delivery(ASK, user_id=None), "login None published as onboarding", id="no login at all"),
        pytest.param(
            delivery(ASK, exchange=exchange_of("tenant"), user_id="tenant"),
            "source onboarding came through tenure.tenant",
            id="another's name, which a CC header brought through the forger's own exchange",
        ),
        pytest.param(
            delivery(replace(ASK, publisher="tenant"), user_id="tenant"),
            "tenant does not say billing.open_account.v1",
            id="its own name, for what only another says",
        ),
        pytest.param(
            delivery(replace(NEWS, message=SubscriptionStarted(tenant_id="t1", plan="pro"))),
            "tenant does not say billing.subscription_started.v1",
            id="a fact of the listener itself",
        ),
        pytest.param(
            delivery(ASK, exchange="", user_id="tenant", headers={ORIGIN: "tenure.onboarding", ATTEMPT: 1}),
            "login tenant published as billing",
            id="dead-lettered straight into the queue, with the ladder's headers",
        ),
        pytest.param(
            delivery(
                ASK,
                exchange=retry_exchange_of("billing"),
                user_id="tenant",
                headers={ORIGIN: "tenure.onboarding", ATTEMPT: 1},
            ),
            "login tenant published as billing",
            id="dead-lettered through the listener's own retry exchange",
        ),
        pytest.param(
            delivery(ASK, exchange=retry_exchange_of("tenant"), user_id="tenant"),
            "login tenant published as tenant.retry",
            id="dead-lettered through the forger's own retry exchange",
        ),
        pytest.param(
            delivery(ASK, exchange="", user_id="billing"),
            "a message on the retry ladder without its headers",
            id="on the ladder without its headers",
        ),
        pytest.param(
            delivery(ASK, exchange="", user_id="billing", headers={ORIGIN: "tenure.onboarding", ATTEMPT: "1"}),
            "a message on the retry ladder without its headers",
            id="on the ladder with an attempt that is no number",
        ),
        pytest.param(
            delivery(ASK, exchange="", user_id="billing", headers={ORIGIN: "tenure.tenant", ATTEMPT: 1}),
            "source onboarding came through tenure.tenant",
            id="on the ladder from the wrong exchange",
        ),
        pytest.param(delivery(ASK, exchange="tenure.status", user_id="onboarding"), "status", id="a status message"),
    ],
)
def test_a_forgery_is_rejected(forgery: Delivery, detail: str) -> None:
    rejected = the_rejected(forgery)

    assert rejected.reason == "forged"
    assert detail in rejected.detail
    assert (rejected.origin, rejected.user_id) == (forgery.exchange or rejected.origin, forgery.user_id or "")


def test_the_listeners_own_retry_is_admitted_with_its_origin_and_attempt() -> None:
    [arrival] = admit(delivery(ASK, exchange="", user_id="billing", headers={ORIGIN: "tenure.onboarding", ATTEMPT: 2}))

    assert isinstance(arrival, Arrival)
    assert (arrival.event, arrival.origin, arrival.attempt) == (ASK, "tenure.onboarding", 2)


def test_headers_of_the_ladder_mean_nothing_on_a_publishers_exchange() -> None:
    [arrival] = admit(delivery(NEWS, headers={ORIGIN: "tenure.onboarding", ATTEMPT: 3}))

    assert isinstance(arrival, Arrival)
    assert (arrival.origin, arrival.attempt) == ("tenure.tenant", 0)


def test_where_all_services_share_one_login_it_must_be_that_one() -> None:
    shared = dict.fromkeys(MANIFEST.services, "guest")

    [admitted] = admit(delivery(ASK, user_id="guest"), shared)
    [rejected] = admit(delivery(ASK, user_id="onboarding"), shared)

    assert isinstance(admitted, Arrival)
    assert isinstance(rejected, Rejected)


def test_a_message_that_is_for_another_service_is_not_ours_to_handle() -> None:
    stray = asked(RegisterTenant(tenant_id="t1", customer_name="Ada", tier="free", email="ada@example.com"))

    assert the_rejected(delivery(stray)).reason == "forged"  # in this system nobody says it


def test_an_answer_of_the_service_itself_is_not_taken_for_an_ask() -> None:
    own = replace(ASK, publisher="billing", message=AccountOpened(tenant_id="t1", account_id="a1"))

    assert the_unknown(delivery(own)).detail == "billing has no handler for billing.account_opened.v1"


def test_an_undo_needs_a_step_too() -> None:
    undo = asked(VoidAccount(tenant_id="t1"))

    assert isinstance(admit(delivery(undo))[0], Arrival)
    assert the_rejected(delivery(replace(undo, workflow_id=None))).reason == "undecodable"
