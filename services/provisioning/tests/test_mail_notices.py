"""What is made of the words in which Amazon tells of mails, and what of words that are none."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.provisioning.mail.judging import Limits, Score, judge
from services.provisioning.mail.notices import Event, Notice, Occurrence, Oddity, read
from services.provisioning.tests.mail_kit import bounce, complaint, event, send, wrapped

ACCOUNT = "111122223333"
AT = datetime(2026, 3, 1, 23, 59, 59, 123_000, tzinfo=UTC)
LATER = AT + timedelta(minutes=5)


def understood(document: Any) -> Occurrence | Oddity:
    return read(wrapped(document, at=LATER), queued_at=LATER).says


def details(name: str, **more: Any) -> dict[str, Any]:
    return event(ACCOUNT, name, at=LATER, sent_at=AT, **more)


@pytest.mark.parametrize(
    ("document", "what", "count"),
    [
        (send(ACCOUNT, at=AT, recipients=3) | {"send": {}}, Event.SEND, 3),
        (details("Delivery", recipients=["a@b.example", "c@d.example"]), Event.DELIVERY, 2),
        (bounce(ACCOUNT, at=LATER, sent_at=AT, recipients=2), Event.PERMANENT_BOUNCE, 2),
        (details("Bounce", bounceType="Transient", bounceSubType="MailboxFull"), Event.TRANSIENT_BOUNCE, 1),
        (details("Bounce", bounceType="Undetermined"), Event.TRANSIENT_BOUNCE, 1),
        (details("Bounce", bounceType="Permanent", bounceSubType="OnAccountSuppressionList"), Event.SUPPRESSION, 1),
        (complaint(ACCOUNT, at=LATER), Event.COMPLAINT, 1),
        (details("Complaint", complaintSubType="OnAccountSuppressionList"), Event.SUPPRESSION, 1),
        (details("Reject", reason="Bad content"), Event.REJECT, 1),
        (details("Rendering Failure", errorMessage="No such attribute"), Event.RENDERING_FAILURE, 1),
        (details("DeliveryDelay", delayType="SpamDetected"), Event.DELIVERY_DELAY, 1),
        (details("Open", ipAddress="192.0.2.1", userAgent="a browser"), Event.OPEN, 1),
        (details("Click", link="https://example.org/"), Event.CLICK, 1),
        (details("Subscription", source="UnsubscribeHeader"), Event.SUBSCRIPTION, 1),
    ],
    ids=lambda value: value.value if isinstance(value, Event) else "",
)
def test_every_kind_of_event_is_understood(document: dict[str, Any], what: Event, count: int) -> None:
    says = understood(document)

    assert isinstance(says, Occurrence)
    assert (says.event, says.account_id, says.count) == (what, ACCOUNT, count)


def test_an_event_happens_when_it_says_and_not_when_its_mail_was_sent() -> None:
    assert understood(bounce(ACCOUNT, at=LATER, sent_at=AT)) == Occurrence(
        Event.PERMANENT_BOUNCE, ACCOUNT, LATER, AT, 1
    )
    assert understood(send(ACCOUNT, at=AT)) == Occurrence(Event.SEND, ACCOUNT, AT, AT, 1)


def test_what_an_identity_notifies_of_is_understood_too() -> None:
    document = bounce(ACCOUNT, at=LATER, sent_at=AT)
    document["notificationType"] = document.pop("eventType")

    assert understood(document) == Occurrence(Event.PERMANENT_BOUNCE, ACCOUNT, LATER, AT, 1)


def test_nothing_of_people_is_kept() -> None:
    said = repr(understood(bounce(ACCOUNT, at=LATER, recipients=2)))

    assert "people.example" not in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("Successfully validated SNS topic for Amazon SES event publishing.", Oddity.GREETING),
        ({"notificationType": "AmazonSnsSubscriptionSucceeded", "message": "You have ..."}, Oddity.GREETING),
        ("", Oddity.UNREADABLE),
        ("[]", Oddity.UNREADABLE),
        ({"eventType": ["Send"]}, Oddity.UNREADABLE),
        ({"eventType": "Send"}, Oddity.UNREADABLE),
        ({"eventType": "Dance", "mail": {}}, Oddity.UNKNOWN_EVENT),
        (send("not-an-account", at=AT), Oddity.UNREADABLE),
        (send(ACCOUNT, at=AT) | {"send": 3}, Oddity.UNREADABLE),
        (send(ACCOUNT, at=AT) | {"mail": {"timestamp": "2026-03-01", "sendingAccountId": ACCOUNT}}, Oddity.UNREADABLE),
        (
            send(ACCOUNT, at=AT) | {"mail": {"timestamp": "0001-01-01T00:00:00+12:00", "sendingAccountId": ACCOUNT}},
            Oddity.UNREADABLE,
        ),
    ],
)
def test_what_is_no_event_of_a_mail_says_why(document: Any, why: Oddity) -> None:
    assert understood(document) is why


@pytest.mark.parametrize("kind", ["SubscriptionConfirmation", "UnsubscribeConfirmation"])
def test_the_topics_own_words_are_a_greeting(kind: str) -> None:
    body = json.dumps({"Type": kind, "MessageId": "x", "Message": "You have chosen ...", "SubscribeURL": "https://…"})

    assert read(body, queued_at=AT).says is Oddity.GREETING


def test_a_notice_is_known_by_what_the_topic_calls_it_whoever_wraps_it_again() -> None:
    message_id = "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324"
    first = read(wrapped(send(ACCOUNT, at=AT), message_id=message_id, at=LATER), queued_at=AT)
    again = read(wrapped(send(ACCOUNT, at=AT), message_id=message_id, at=LATER), queued_at=LATER)

    assert (str(first.key), first.day) == (message_id, LATER.date())
    assert (first.key, first.day) == (again.key, again.day)


def test_a_notice_that_comes_bare_is_known_by_what_it_says() -> None:
    body = json.dumps(send(ACCOUNT, at=AT))

    first, again = read(body, queued_at=AT), read(body, queued_at=LATER)

    assert first == again
    assert first.day == date(2026, 3, 1)
    assert first.says == Occurrence(Event.SEND, ACCOUNT, AT, AT, 1)
    assert read(json.dumps(send(ACCOUNT, at=AT)), queued_at=AT).key != first.key


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["Type", "Message", "MessageId", "Timestamp", "eventType", "notificationType", "mail", "bounce"])
WORDS = JSON | st.sampled_from(["Notification", "Bounce", "Send"])


@given(st.text(max_size=40) | st.dictionaries(KEYS, WORDS).map(json.dumps) | JSON.map(json.dumps))
def test_whatever_comes_in_something_is_made_of_it(body: str) -> None:
    for each in (body, wrapped(body, at=AT)):
        notice = read(each, queued_at=AT)

        assert isinstance(notice, Notice)
        assert notice == read(each, queued_at=AT)


LIMITS = Limits(bounces=8.0, complaints=0.4, least_sends=500)


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (Score(0, 0, 0), None),
        (Score(1000, 80, 4), None),
        (Score(1000, 81, 0), "bounce_rate"),
        (Score(1000, 0, 5), "complaint_rate"),
        (Score(1000, 81, 5), "bounce_rate"),
        (Score(10, 10, 2), None),  # of five hundred, that is little
        (Score(41, 41, 0), "bounce_rate"),
        (Score(0, 41, 0), "bounce_rate"),
        (Score(3, 0, 3), "complaint_rate"),
    ],
)
def test_a_tenant_is_paused_beyond_a_limit_and_not_for_a_few_mails(score: Score, reason: str | None) -> None:
    assert judge(score, LIMITS) == reason


def test_rates_are_shares_of_what_was_sent() -> None:
    assert (Score(800, 3, 1).bounce_rate, Score(800, 3, 1).complaint_rate) == (0.38, 0.12)
    assert (Score(0, 3, 1).bounce_rate, Score(0, 3, 1).complaint_rate) == (None, None)


def test_a_window_begins_with_an_hour() -> None:
    assert Limits(window=timedelta(hours=2)).since(AT) == datetime(2026, 3, 1, 21, tzinfo=UTC)
