"""What is kept of members for an undo: all of it, also across releases, and whatever mails were sent meanwhile."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.identity.invitations import AT_ONCE, Person
from services.identity.roster import Change, InvitationRecord, Member, before_of, changes_of
from services.identity.tests.office import PASSWORD, Office, open_office
from services.identity.tests.world import ANNA, BELA, World
from shared.contracts.identity import CreateAdministrators, SetAdministrators

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
INVITATION = InvitationRecord(UUID(int=1), "TenantAdmin", "ff" * 32, "pending", NOON, NOON + timedelta(days=7), None)
CHANGE = Change(
    Person(UUID(int=2), ANNA, ANNA, NOON), Member("TenantAdmin", NOON, INVITATION), Member("TenantUser", NOON, None)
)


@pytest.fixture
async def office(world: World) -> AsyncIterator[Office]:
    async with open_office(world.pool) as office:
        yield office


def test_all_that_is_known_of_a_member_is_read_as_it_was_written() -> None:
    full = replace(
        INVITATION,
        delivery="failed",
        accepted_at=NOON,
        customer_name="Acme",
        invited_by="user:1",
        attempts=8,
        next_attempt_at=NOON,
    )
    change = replace(
        CHANGE, person=replace(CHANGE.person, name="Anna"), found=Member("TenantAdmin", NOON, full), left=None
    )

    assert changes_of(before_of([change])) == [change]


def test_what_an_earlier_release_has_written_down_can_be_read() -> None:
    written = before_of([CHANGE])
    assert written is not None
    (change,) = written["changes"]
    for name in ("customer_name", "invited_by", "attempts", "next_attempt_at"):
        del change["found"]["invitation"][name]
    del change["person"]["name"]

    (read,) = changes_of(written)

    assert read == CHANGE
    assert read.found is not None
    assert read.found.invitation is not None
    assert read.found.invitation.next_attempt_at == AT_ONCE


async def test_who_comes_back_by_an_undo_keeps_its_name_and_gets_in_by_the_mail_it_has(
    world: World, office: Office
) -> None:
    await world.do(CreateAdministrators(tenant_id="t1", customer_name="Acme", emails=(ANNA,)))
    await office.deliver()
    await world.pool.execute("UPDATE users SET name = 'Anna'")
    found = await world.snapshot()
    dismissed = await world.do(SetAdministrators(tenant_id="t1", customer_name="Acme", emails=(BELA,)))
    await office.deliver()

    await world.undo(dismissed)

    assert await world.snapshot() == found
    assert await office.deliver() == 0
    assert (await office.accept(office.postbox.token(ANNA), password=PASSWORD)).status_code == 200
    assert (await office.accept(office.postbox.token(BELA), password=PASSWORD)).status_code == 404
