"""Inviting by hand and accepting: who may, what becomes of it, and what nobody can find out."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from services.identity import inviting
from services.identity.tests.office import ADMIN_KEY, INSTALLATION, PASSWORD, Office, open_office
from services.identity.tests.world import WEEK
from shared.postgres import Pool, transaction
from shared.testing import eventually

ANNA, BELA, CLEO, NEW = "anna@example.org", "bela@example.org", "cleo@example.org", "new@example.org"
AS_ANNA, AS_USER, AS_BELA = f"{ANNA}/t1", f"{CLEO}/t1", f"{BELA}/t2"
OPS, HELP = "ops@example.org", "help@example.org"
AS_OPS, AS_HELP = f"{OPS}/{INSTALLATION}", f"{HELP}/{INSTALLATION}"


@pytest.fixture
async def office(pool: Pool) -> AsyncIterator[Office]:
    """Anna administers t1, where Cleo is a user; Bela administers t2; and there are two operators."""
    async with open_office(pool) as office:
        await office.member(ANNA, "t1", "TenantAdmin")
        await office.member(CLEO, "t1", "TenantUser")
        await office.member(BELA, "t2", "TenantAdmin")
        await office.member(OPS, INSTALLATION, "SystemAdmin")
        await office.member(HELP, INSTALLATION, "CustomerSupport")
        yield office


async def post(office: Office, who: str, email: str = NEW, role: str = "TenantUser", **more: str) -> httpx2.Response:
    return await office.ask(who, "POST", "/v1/invitations", json={"email": email, "role": role} | more)


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def without_ids(answer: httpx2.Response, *ids: str) -> dict[str, Any]:
    """Return a problem without what the client itself has sent."""
    text = answer.text
    for each in ids:
        text = text.replace(each, "<id>")
    problem: dict[str, Any] = httpx2.Response(200, text=text).json()
    return problem


# Inviting


async def test_an_administrator_invites_into_its_own_tenant(office: Office) -> None:
    answer = await post(office, AS_ANNA, "New@Example.org", "TenantAdmin")

    invitation = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/v1/invitations/{invitation['invitationId']}"
    user_id = (await office.invitation_of("t1", ANNA))["user_id"]
    assert invitation == {
        "invitationId": str(UUID(invitation["invitationId"])),
        "tenantId": "t1",
        "email": "New@example.org",
        "role": "TenantAdmin",
        "status": "open",
        "delivery": "pending",
        "invitedBy": f"user:{user_id}",
        "createdAt": "2026-01-01T00:00:00Z",
        "expiresAt": "2026-01-08T00:00:00Z",
    }
    assert ("New@example.org", "TenantAdmin") in await office.members("t1")
    assert (await office.invitation_of("t1", "New@example.org"))["customer_name"] == "Customer t1"


async def test_support_that_acts_in_a_tenant_invites_into_it(office: Office) -> None:
    visitor = office.support(HELP, "t2")

    invitation = await office.invite(visitor, NEW, "TenantUser")

    assert invitation["tenantId"] == "t2"
    refused = await office.client.post(
        "/v1/invitations", json={"email": NEW, "role": "TenantAdmin"}, headers={"Authorization": f"Bearer {visitor}"}
    )
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_an_operator_invites_into_any_tenant(office: Office) -> None:
    for who in (AS_OPS, ADMIN_KEY):
        invitation = await office.invite(who, f"{who[:3]}@example.net", "TenantAdmin", tenantId="t2")
        assert invitation["tenantId"] == "t2"
    assert invitation["invitedBy"] == "system-administrator"


@pytest.mark.parametrize("role", ["SystemAdmin", "CustomerSupport"])
async def test_an_operator_invites_operators_who_belong_to_no_tenant(office: Office, role: str) -> None:
    invitation = await office.invite(ADMIN_KEY, NEW, role)

    assert (invitation["tenantId"], invitation["role"]) == (None, role)
    assert (NEW, role) in await office.members(INSTALLATION)
    user_id = (await office.invitation_of(INSTALLATION, NEW))["user_id"]
    user = (await office.ask(ADMIN_KEY, "GET", f"/v1/users/{user_id}")).json()
    assert (user["operatorRole"], user["memberships"]) == (role, [])


@pytest.mark.parametrize(
    ("who", "more", "expected"),
    [
        (AS_USER, {"role": "TenantUser"}, (403, "forbidden")),
        (AS_HELP, {"role": "TenantUser", "tenantId": "t1"}, (403, "forbidden")),
        (AS_ANNA, {"role": "SystemAdmin"}, (403, "forbidden")),
        (AS_ANNA, {"role": "CustomerSupport", "tenantId": "t1"}, (403, "forbidden")),
        (AS_ANNA, {"role": "TenantUser", "tenantId": "t2"}, (404, "unknown_tenant")),
        (AS_ANNA, {"role": "SystemAdmin", "tenantId": INSTALLATION}, (404, "unknown_tenant")),
        (AS_OPS, {"role": "TenantUser", "tenantId": "t0"}, (404, "unknown_tenant")),
        (AS_OPS, {"role": "SystemAdmin", "tenantId": INSTALLATION}, (404, "unknown_tenant")),
        (AS_OPS, {"role": "TenantAdmin"}, (422, "wrong_role")),
        (AS_OPS, {"role": "SystemAdmin", "tenantId": "t1"}, (422, "wrong_role")),
        (AS_ANNA, {"role": "King"}, (422, "validation_failed")),
    ],
)
async def test_nobody_gives_more_than_it_has_or_elsewhere_than_it_is(
    office: Office, who: str, more: dict[str, str], expected: tuple[int, str]
) -> None:
    answer = await post(office, who, **more)

    assert code_of(answer) == expected
    assert await office.pool.fetchval("SELECT count(*) FROM users WHERE email = $1", NEW) == 0


async def test_another_tenant_is_answered_like_one_that_is_not_there(office: Office) -> None:
    foreign, absent = [await post(office, AS_ANNA, tenantId=each) for each in ("t2", "t0")]

    assert foreign.status_code == 404
    assert without_ids(foreign, "t2") == without_ids(absent, "t0")


async def test_asking_again_changes_nothing(office: Office) -> None:
    first = await office.invite(AS_ANNA, NEW, "TenantUser")
    await office.clock.advance(60)

    again = await post(office, AS_ANNA, NEW.upper())

    assert (again.status_code, again.json()) == (200, first)
    assert await office.deliver() == 1


async def test_asking_again_when_it_has_expired_renews_it(office: Office) -> None:
    first = await office.invite(AS_ANNA, NEW, "TenantUser")
    await office.deliver()
    await office.clock.advance(WEEK.total_seconds())

    again = await post(office, AS_OPS, tenantId="t1")

    assert again.json()["invitationId"] == first["invitationId"]
    assert (again.status_code, again.json()["status"], again.json()["delivery"]) == (200, "open", "pending")
    assert again.json()["createdAt"] == "2026-01-08T00:00:00Z"
    assert code_of(await office.accept(office.postbox.token(NEW), password=PASSWORD)) == (404, "invalid_invitation")
    await office.deliver()
    assert (await office.accept(office.postbox.token(NEW), password=PASSWORD)).status_code == 200


async def test_who_is_a_member_already_is_not_invited(office: Office) -> None:
    assert code_of(await post(office, AS_ANNA, CLEO)) == (409, "already_member")

    await office.pool.execute("DELETE FROM invitation")
    assert code_of(await post(office, AS_ANNA, CLEO)) == (409, "already_member")


async def test_who_is_invited_as_something_else_stays_so(office: Office) -> None:
    await office.invite(AS_ANNA, NEW, "TenantUser")

    assert code_of(await post(office, AS_ANNA, role="TenantAdmin")) == (409, "already_invited")
    assert (NEW, "TenantUser") in await office.members("t1")


async def test_a_member_of_another_tenant_is_invited_like_anybody_and_is_one_user(office: Office) -> None:
    known, unknown = [await post(office, AS_ANNA, each) for each in (BELA, NEW)]

    assert known.json().keys() == unknown.json().keys()
    assert known.status_code == unknown.status_code == 201
    assert await office.pool.fetchval("SELECT count(*) FROM users WHERE email = $1", BELA) == 1


async def test_only_so_many_invitations_into_a_tenant_are_open(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inviting, "MOST_OPEN", 2)
    for number in range(2):
        await office.invite(AS_ANNA, f"{number}@example.net", "TenantUser")

    assert code_of(await post(office, AS_ANNA)) == (409, "too_many_invitations")
    assert (await post(office, AS_BELA)).status_code == 201
    await office.clock.advance(WEEK.total_seconds())
    assert (await post(office, AS_ANNA)).status_code == 201


async def test_many_who_invite_at_once_do_not_exceed_what_may_be_open(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inviting, "MOST_OPEN", 3)

    answers = await asyncio.gather(*(post(office, AS_ANNA, f"{number}@example.net") for number in range(8)))

    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5


async def test_one_address_that_is_invited_many_times_at_once_is_invited_once(office: Office) -> None:
    answers = await asyncio.gather(*(post(office, AS_ANNA) for _ in range(8)))

    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["invitationId"] for answer in answers}) == 1


async def test_nobody_is_invited_into_a_tenant_that_is_being_purged(office: Office) -> None:
    async with transaction(office.pool) as connection:
        await connection.execute("SELECT FROM users ORDER BY email_key FOR UPDATE")
        asking = asyncio.create_task(post(office, AS_OPS, tenantId="t2"))
        await eventually(lambda: _waits(office))
        await connection.execute("DELETE FROM invitation WHERE tenant_id = 't2'")
        await connection.execute("DELETE FROM membership WHERE tenant_id = 't2'")

    assert code_of(await asking) == (404, "unknown_tenant")
    assert await office.members("t2") == set()
    assert await office.pool.fetchval("SELECT count(*) FROM users WHERE email = $1", NEW) == 0


async def _waits(office: Office) -> bool:
    return bool(
        await office.pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    )


@pytest.mark.parametrize(
    "email", ["new", "new@example", "new@exämple.org", "a@example.org\r\nBcc: b@example.org", "ñ@example.org"]
)
async def test_what_is_no_address_is_refused_by_name(office: Office, email: str) -> None:
    answer = await post(office, AS_ANNA, email)

    assert code_of(answer) == (422, "validation_failed")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/email"]


# Seeing


async def test_each_tenant_sees_its_own_invitations_and_operators_see_all(office: Office) -> None:
    await office.invite(AS_ANNA, NEW, "TenantUser")

    own = {each["email"] for each in await office.items(AS_ANNA, "/v1/invitations", limit="1")}
    assert own == {ANNA, CLEO, NEW}
    assert {each["email"] for each in await office.items(AS_BELA, "/v1/invitations")} == {BELA}
    assert await office.items(AS_BELA, "/v1/invitations", tenantId="t1") == []
    every = {(each["email"], each["tenantId"]) for each in await office.items(AS_OPS, "/v1/invitations", limit="2")}
    assert every == {(ANNA, "t1"), (CLEO, "t1"), (NEW, "t1"), (BELA, "t2"), (OPS, None), (HELP, None)}
    assert {each["email"] for each in await office.items(AS_OPS, "/v1/invitations", tenantId="t2")} == {BELA}


@pytest.mark.parametrize("who", [AS_USER, AS_HELP])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/invitations"),
        ("GET", "/v1/invitations/x"),
        ("POST", "/v1/invitations/x/resend"),
        ("DELETE", "/v1/invitations/x"),
    ],
)
async def test_invitations_are_for_administrators(office: Office, who: str, method: str, path: str) -> None:
    assert code_of(await office.ask(who, method, path)) == (403, "forbidden")


@pytest.mark.parametrize(("method", "more"), [("GET", ""), ("POST", "/resend"), ("DELETE", "")])
async def test_an_invitation_of_another_tenant_is_answered_like_one_that_is_not_there(
    office: Office, method: str, more: str
) -> None:
    there = str((await office.invite(AS_ANNA, NEW, "TenantUser"))["invitationId"])
    found = await office.invitation_of("t1", NEW)
    operators = str((await office.invitation_of(INSTALLATION, OPS))["invitation_id"])
    nowhere = str(uuid4())

    answers = {each: await office.ask(AS_BELA, method, f"/v1/invitations/{each}{more}") for each in (there, operators)}
    absent = await office.ask(AS_BELA, method, f"/v1/invitations/{nowhere}{more}")

    assert code_of(absent) == (404, "unknown_invitation")
    for each, answer in answers.items():
        assert without_ids(answer, each) == without_ids(absent, nowhere)
    assert await office.invitation_of("t1", NEW) == found


async def test_one_invitation_is_shown_as_in_the_list(office: Office) -> None:
    made = await office.invite(AS_ANNA, NEW, "TenantUser")

    for who in (AS_ANNA, AS_OPS, ADMIN_KEY):
        assert (await office.ask(who, "GET", f"/v1/invitations/{made['invitationId']}")).json() == made
    assert made in await office.items(AS_ANNA, "/v1/invitations")


# Sending again


async def test_another_mail_makes_the_one_before_worthless_and_lasts_the_whole_time(office: Office) -> None:
    made = await office.invite(AS_ANNA, NEW, "TenantUser")
    await office.deliver()
    before = office.postbox.token(NEW)
    await office.clock.advance(3600)

    answer = await office.ask(AS_ANNA, "POST", f"/v1/invitations/{made['invitationId']}/resend")

    assert (answer.status_code, answer.json()["delivery"]) == (202, "pending")
    assert answer.json()["expiresAt"] == "2026-01-08T01:00:00Z"
    assert code_of(await office.accept(before, password=PASSWORD)) == (404, "invalid_invitation")
    assert await office.deliver() == 1
    assert (await office.accept(office.postbox.token(NEW), password=PASSWORD)).status_code == 200


async def test_nobody_gets_more_than_one_mail_a_minute(office: Office) -> None:
    made = await office.invite(AS_ANNA, NEW, "TenantUser")
    await office.deliver()

    for _ in range(3):
        await office.ask(AS_ANNA, "POST", f"/v1/invitations/{made['invitationId']}/resend")
        assert await office.deliver() == 0

    await office.clock.advance(60)
    assert await office.deliver() == 1


async def test_what_was_accepted_is_not_sent_again(office: Office) -> None:
    invitation_id = (await office.invitation_of("t1", CLEO))["invitation_id"]

    answer = await office.ask(AS_ANNA, "POST", f"/v1/invitations/{invitation_id}/resend")

    assert code_of(answer) == (409, "invitation_accepted")


# Withdrawing


async def test_who_is_not_invited_any_more_is_no_member_and_no_user(office: Office) -> None:
    made = await office.invite(AS_ANNA, NEW, "TenantUser")
    await office.deliver()

    answer = await office.ask(AS_ANNA, "DELETE", f"/v1/invitations/{made['invitationId']}")

    assert answer.status_code == 204
    assert NEW not in {email for email, _ in await office.members("t1")}
    assert await office.pool.fetchval("SELECT count(*) FROM users WHERE email = $1", NEW) == 0
    assert code_of(await office.accept(office.postbox.token(NEW), password=PASSWORD)) == (404, "invalid_invitation")


async def test_who_is_not_invited_any_more_stays_a_member_of_other_tenants(office: Office) -> None:
    made = await office.invite(AS_ANNA, BELA, "TenantUser")

    await office.ask(AS_ANNA, "DELETE", f"/v1/invitations/{made['invitationId']}")

    assert (BELA, "TenantAdmin") in await office.members("t2")


async def test_an_accepted_invitation_can_go_and_the_member_stays(office: Office) -> None:
    invitation_id = (await office.invitation_of("t1", CLEO))["invitation_id"]

    assert (await office.ask(AS_ANNA, "DELETE", f"/v1/invitations/{invitation_id}")).status_code == 204

    assert (CLEO, "TenantUser") in await office.members("t1")


async def test_a_tenant_keeps_somebody_who_may_come_to_administer_it(office: Office) -> None:
    await office.member("first@example.org", "t3", "TenantAdmin", accepted=False)
    first = (await office.invitation_of("t3", "first@example.org"))["invitation_id"]

    assert code_of(await office.ask(AS_OPS, "DELETE", f"/v1/invitations/{first}")) == (409, "last_administrator")

    await office.invite(AS_OPS, NEW, "TenantAdmin", tenantId="t3")
    assert (await office.ask(AS_OPS, "DELETE", f"/v1/invitations/{first}")).status_code == 204


# Accepting


async def test_who_is_invited_accepts_with_a_password_and_once(office: Office) -> None:
    await office.invite(AS_ANNA, NEW, "TenantUser")
    await office.deliver()
    token = office.postbox.token(NEW)

    answer = await office.accept(token, password=PASSWORD)

    assert (answer.status_code, answer.json()["status"], answer.json()["tenantId"]) == (200, "accepted", "t1")
    assert answer.headers["Cache-Control"] == "no-store"
    row = await office.pool.fetchrow("SELECT hash FROM password JOIN users USING (user_id) WHERE email = $1", NEW)
    assert row is not None
    assert row["hash"].startswith("$argon2id$")
    assert code_of(await office.accept(token, password=PASSWORD)) == (404, "invalid_invitation")
    assert code_of(await office.accept(token)) == (404, "invalid_invitation")


async def test_of_many_who_accept_at_once_one_does(office: Office) -> None:
    await office.invite(AS_ANNA, NEW, "TenantUser")
    await office.deliver()

    answers = await asyncio.gather(*(office.accept(office.postbox.token(NEW), password=PASSWORD) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404]


async def test_tokens_that_are_not_good_are_answered_alike(office: Office) -> None:
    for number, email in enumerate(("used@example.org", "late@example.org", "gone@example.org")):
        made = await office.invite(AS_ANNA, email, "TenantUser")
        await office.deliver()
        if number == 0:
            await office.accept(office.postbox.token(email), password=PASSWORD)
        if number == 2:
            await office.ask(AS_ANNA, "DELETE", f"/v1/invitations/{made['invitationId']}")
    await office.clock.advance(WEEK.total_seconds())
    tokens = [mail.link.partition("#token=")[2] for mail in office.postbox.mails]

    answers = [await office.accept(token, password=PASSWORD) for token in [*tokens, "made-up", "x" * 200]]
    without = [await office.accept(token) for token in [*tokens, "made-up"]]

    assert len(tokens) == 3
    assert {answer.text for answer in (*answers, *without)} == {answers[0].text}
    assert code_of(answers[0]) == (404, "invalid_invitation")


async def test_who_has_no_password_must_choose_one(office: Office) -> None:
    await office.invite(AS_ANNA, NEW, "TenantUser")
    await office.deliver()

    answer = await office.accept(office.postbox.token(NEW))

    assert code_of(answer) == (422, "password_required")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/password"]


@pytest.mark.parametrize("password", ["short", "password1234", "x" * 201, NEW, "aaaaaaaaaaaaaaa"])
async def test_a_password_that_is_tried_first_is_refused_and_the_invitation_stays_open(
    office: Office, password: str
) -> None:
    await office.invite(AS_ANNA, NEW, "TenantUser")
    await office.deliver()

    assert code_of(await office.accept(office.postbox.token(NEW), password=password)) == (422, "weak_password")

    assert (await office.accept(office.postbox.token(NEW), password=PASSWORD)).status_code == 200


async def test_who_has_a_password_accepts_without_one_and_keeps_it(office: Office) -> None:
    await office.pool.execute(
        "INSERT INTO password (user_id, hash, changed_at) SELECT user_id, 'kept', now() FROM users WHERE email = $1",
        BELA,
    )
    await office.invite(AS_ANNA, BELA, "TenantUser")
    await office.deliver()

    refused = await office.accept(office.postbox.token(BELA), password="of somebody who reads the mail")
    accepted = await office.accept(office.postbox.token(BELA))

    assert code_of(refused) == (409, "password_exists")
    assert accepted.status_code == 200
    assert [row["hash"] for row in await office.pool.fetch("SELECT hash FROM password")] == ["kept"]


async def test_of_two_invitations_that_are_accepted_at_once_one_sets_the_password(office: Office) -> None:
    await office.invite(AS_ANNA, NEW, "TenantUser")
    await office.invite(AS_BELA, NEW, "TenantUser")
    await office.deliver()
    tokens = [mail.link.partition("#token=")[2] for mail in office.postbox.mails]

    answers = await asyncio.gather(*(office.accept(token, password=f"{PASSWORD} {token}") for token in tokens))

    assert sorted(answer.status_code for answer in answers) == [200, 409]
    open_ = await office.pool.fetchval("SELECT count(*) FROM invitation WHERE accepted_at IS NULL")
    assert open_ == 1  # whose password was refused can accept without one


async def test_accepting_needs_no_credentials_and_ignores_those_that_are_sent(office: Office) -> None:
    answer = await office.client.post(
        "/v1/invitations/accept", json={"token": "made-up"}, headers={"Authorization": "Bearer nobody"}
    )

    assert code_of(answer) == (404, "invalid_invitation")


async def test_the_page_of_the_link_runs_no_script_but_its_own_and_is_kept_by_nobody(office: Office) -> None:
    answer = await office.client.get("/invitations/accept")

    policy = answer.headers["Content-Security-Policy"]
    assert answer.status_code == 200
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
