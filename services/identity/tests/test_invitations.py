from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.identity.invitations import invitations_for, people_named, status_of, user_ids_of
from shared.clock import ManualClock
from shared.contracts.identity import CreateAdministrators
from shared.ids import SeededIds

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANNA, BELA = UUID(int=1), UUID(int=2)
USERS = {"anna@example.org": ANNA, "bela@example.org": BELA}


@pytest.fixture
def ids() -> SeededIds:
    return SeededIds(7, ManualClock())


def ask(tenant_id: str, *emails: str) -> CreateAdministrators:
    return CreateAdministrators(tenant_id=tenant_id, customer_name="Acme", emails=emails)


def test_spellings_of_one_address_are_one_person_as_written_first(ids: SeededIds) -> None:
    people = people_named(
        [ask("t1", "Anna@example.org", "bela@example.org"), ask("t2", "anna@EXAMPLE.org")], ids, now=NOON
    )

    assert [(person.email, person.email_key) for person in people] == [
        ("Anna@example.org", "anna@example.org"),
        ("bela@example.org", "bela@example.org"),
    ]
    assert len({person.user_id for person in people}) == 2


@pytest.mark.parametrize(
    ("emails", "expected"),
    [
        (("bela@example.org", "anna@example.org"), [BELA, ANNA]),
        (("bela@example.org", "anna@example.org", "BELA@example.org"), [BELA, ANNA]),
        ((), []),
    ],
)
def test_users_are_in_the_order_of_the_addresses_and_each_once(emails: Sequence[str], expected: list[UUID]) -> None:
    assert user_ids_of(ask("t1", *emails), USERS) == expected


def test_a_user_is_invited_once_into_each_of_its_tenants(ids: SeededIds) -> None:
    asks = [ask("t1", "anna@example.org", "Anna@example.org"), ask("t2", "anna@example.org"), ask("t1", *USERS)]

    invitations = invitations_for(asks, USERS, ids)

    assert [(invitation.tenant_id, invitation.user_id) for invitation in invitations] == [
        ("t1", ANNA),
        ("t2", ANNA),
        ("t1", BELA),
    ]
    assert len({invitation.invitation_id for invitation in invitations}) == 3


def test_every_invitation_has_a_token_of_its_own_that_no_seed_determines() -> None:
    hashes = {
        invitation.token_hash
        for _ in range(2)
        for invitation in invitations_for([ask("t1", *USERS)], USERS, SeededIds(7, ManualClock()))
    }

    assert len(hashes) == 4
    assert {len(token_hash) for token_hash in hashes} == {32}


@pytest.mark.parametrize(
    ("accepted_at", "now", "expected"),
    [
        (None, NOON, "open"),
        (None, NOON + timedelta(days=7), "expired"),
        (NOON, NOON + timedelta(days=8), "accepted"),
    ],
)
def test_the_status_of_an_invitation_follows_from_its_times(
    accepted_at: datetime | None, now: datetime, expected: str
) -> None:
    assert status_of(accepted_at=accepted_at, expires_at=NOON + timedelta(days=7), now=now) == expected
