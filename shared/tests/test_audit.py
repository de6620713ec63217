"""What is told of a decision: by whom and why, what was different, and nothing that somebody could be known by."""

from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from pydantic import ValidationError

from shared.access import ADMINISTRATOR, Principal, Role
from shared.audit import Actor, Decider, changed, decision, told
from shared.clock import ManualClock
from shared.contracts.base import INSTALLATION
from shared.contracts.tenant import DecisionRecorded
from shared.ids import TimeOrderedIds

VISITOR = Principal(id="user:sue", role=Role.CUSTOMER_SUPPORT, tenant_id="t1", reason="Ticket 7")


def decided(decider: Decider = ADMINISTRATOR, **more: object) -> DecisionRecorded:
    given = {"tenant_id": "t1", "action": "thing.changed", "subject": "thing:1", **more}
    return decision(DecisionRecorded, decider, **given, clock=ManualClock(), ids=TimeOrderedIds())  # type: ignore[arg-type]


def test_a_decision_tells_who_took_it_as_what_and_when() -> None:
    made = decided()

    assert (made.actor, made.role, made.reason) == ("system-administrator", "SystemAdmin", None)
    assert made.decided_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert made.decision_id != decided().decision_id


def test_support_decides_for_the_reason_of_its_visit_unless_it_has_a_better_one() -> None:
    assert decided(VISITOR).reason == "Ticket 7"
    assert decided(VISITOR, reason="It is urgent.").reason == "It is urgent."
    assert decided(Actor("expiration")).role is None


def test_it_comes_back_from_the_wire_as_it_was_sent() -> None:
    made = decided(before={"n": 1}, after={"list": [True, None, "…"], "of": {"what": "it is"}}, tenant_id=INSTALLATION)

    assert DecisionRecorded.model_validate_json(made.model_dump_json(by_alias=True)) == made


def test_times_and_identities_are_told_as_text() -> None:
    after = {
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "on": date(2026, 1, 1),
        "id": UUID(int=1),
        "role": Role.TENANT_USER,
    }

    assert decided(after=after).after == {
        "at": "2026-01-01T00:00:00+00:00",
        "on": "2026-01-01",
        "id": str(UUID(int=1)),
        "role": "TenantUser",
    }


def test_what_has_no_form_on_the_wire_or_two_is_refused() -> None:
    with pytest.raises(TypeError, match="not JSON serializable: object"):
        decided(after={"what": object()})
    for number in (0.5, 2**53):
        with pytest.raises(ValidationError, match="must be whole"):
            decided(before={"numbers": [{"n": number}]})


def test_only_what_differs_is_told() -> None:
    before = {"same": 1, "other": "a", "gone": [1], "null": None}
    after = {"same": 1, "other": "b", "new": {"is": "here"}, "null": None}

    assert changed(before, after) == ({"other": "a", "gone": [1]}, {"other": "b", "new": {"is": "here"}})


def test_of_what_is_personal_only_that_it_has_come_changed_or_gone_is_told() -> None:
    before, after = {"phone": "1", "email": "a", "name": "x"}, {"address": "Ring 1", "email": "b", "name": "x"}

    assert changed(before, after, untold={"phone", "email", "address", "name"}) == (
        {"phone": "…", "email": "…"},
        {"address": "…", "email": "…"},
    )
    assert told({"phone": "1", "tier": "pro", "fax": None}, untold={"phone", "fax"}) == {"phone": "…", "tier": "pro"}
