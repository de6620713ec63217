"""Users and memberships over HTTP: who sees whom, who changes what, and what nobody learns of other tenants."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from services.identity.tests.office import ADMIN_KEY, INSTALLATION, Office, open_office
from shared.contracts.identity import SessionsRevoked
from shared.postgres import Pool, transaction
from shared.testing import eventually

ANNA, BELA, CLEO, DORA = "anna@example.org", "bela@example.org", "cleo@example.org", "dora@example.org"
OPS, HELP = "ops@example.org", "help@example.org"
AS_ANNA, AS_CLEO, AS_BELA, AS_DORA = f"{ANNA}/t1", f"{CLEO}/t1", f"{BELA}/t2", f"{DORA}/t2"
AS_OPS, AS_HELP = f"{OPS}/{INSTALLATION}", f"{HELP}/{INSTALLATION}"

People = dict[str, UUID]


@pytest.fixture
async def office(pool: Pool) -> AsyncIterator[Office]:
    async with open_office(pool) as office:
        yield office


@pytest.fixture
async def people(office: Office) -> People:
    """Anna administers t1, Bela t2; Cleo is a user of t1, Dora of t2; Anna and Cleo are users of t2 as well."""
    found = {
        ANNA: await office.member(ANNA, "t1", "TenantAdmin"),
        BELA: await office.member(BELA, "t2", "TenantAdmin"),
        CLEO: await office.member(CLEO, "t1", "TenantUser"),
        DORA: await office.member(DORA, "t2", "TenantUser"),
        OPS: await office.member(OPS, INSTALLATION, "SystemAdmin"),
        HELP: await office.member(HELP, INSTALLATION, "CustomerSupport"),
    }
    await office.member(ANNA, "t2", "TenantUser")
    await office.member(CLEO, "t2", "TenantUser")
    return found


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def seen(office: Office, who: str, **query: str) -> dict[str, list[str]]:
    """Return whom somebody sees, with the tenants that it sees of each."""
    return {
        each["email"]: [membership["tenantId"] for membership in each["memberships"]]
        for each in await office.items(who, "/v1/users", limit="1", **query)
    }


async def revocations(office: Office) -> list[SessionsRevoked]:
    return [each for each in await office.told() if isinstance(each, SessionsRevoked)]


# Seeing


@pytest.mark.usefixtures("people")
async def test_operators_see_everybody_with_everything(office: Office) -> None:
    everybody = {ANNA: ["t1", "t2"], BELA: ["t2"], CLEO: ["t1", "t2"], DORA: ["t2"], OPS: [], HELP: []}

    assert await seen(office, AS_OPS) == await seen(office, ADMIN_KEY) == everybody
    assert await seen(office, AS_OPS, tenantId="t1") == {ANNA: ["t1", "t2"], CLEO: ["t1", "t2"]}
    assert await seen(office, AS_OPS, tenantId=INSTALLATION) == {OPS: [], HELP: []}


@pytest.mark.usefixtures("people")
async def test_an_administrator_sees_its_own_members_and_of_each_its_own_tenant(office: Office) -> None:
    assert await seen(office, AS_ANNA) == {ANNA: ["t1"], CLEO: ["t1"]}
    assert await seen(office, AS_ANNA, tenantId="t1") == {ANNA: ["t1"], CLEO: ["t1"]}
    assert await seen(office, AS_ANNA, tenantId="t2") == {}
    assert await seen(office, AS_ANNA, tenantId=INSTALLATION) == {}
    assert await seen(office, AS_BELA) == {ANNA: ["t2"], BELA: ["t2"], CLEO: ["t2"], DORA: ["t2"]}


@pytest.mark.usefixtures("people")
async def test_support_that_acts_in_a_tenant_sees_what_its_administrator_sees(office: Office) -> None:
    assert await seen(office, office.support(HELP, "t1")) == {ANNA: ["t1"], CLEO: ["t1"]}


async def test_an_administrator_does_not_learn_who_is_an_operator(office: Office, people: People) -> None:
    await office.member(OPS, "t1", "TenantUser")

    for path in (f"/v1/users/{people[OPS]}", "/v1/users"):
        answer = (await office.ask(AS_ANNA, "GET", path)).json()
        shown = next(each for each in answer.get("items", [answer]) if each["email"] == OPS)
        assert (shown["operatorRole"], [each["tenantId"] for each in shown["memberships"]]) == (None, ["t1"])


@pytest.mark.usefixtures("people")
async def test_a_user_sees_itself_alone(office: Office) -> None:
    assert await seen(office, AS_CLEO) == {CLEO: ["t1", "t2"]}
    assert await seen(office, AS_CLEO, tenantId="t1") == {CLEO: ["t1", "t2"]}
    assert await seen(office, AS_CLEO, tenantId="t2") == {}


@pytest.mark.usefixtures("people")
async def test_support_that_acts_in_no_tenant_lists_nobody(office: Office) -> None:
    assert code_of(await office.ask(AS_HELP, "GET", "/v1/users")) == (403, "forbidden")


@pytest.mark.parametrize("who", [AS_ANNA, AS_CLEO, AS_DORA, AS_OPS, AS_HELP])
async def test_everybody_sees_itself_with_everything(office: Office, people: People, who: str) -> None:
    email = who.partition("/")[0]

    by_name, by_id = [await office.ask(who, "GET", f"/v1/users/{each}") for each in ("me", people[email])]

    assert by_name.json() == by_id.json()
    assert by_name.json()["email"] == email
    if who in {AS_ANNA, AS_CLEO}:
        assert [each["tenantId"] for each in by_name.json()["memberships"]] == ["t1", "t2"]


async def test_a_user_is_shown_with_what_it_is_where(office: Office, people: People) -> None:
    await office.pool.execute("INSERT INTO tenant_block VALUES ('t2', 'unpaid', now())")

    answer = await office.ask(AS_OPS, "GET", f"/v1/users/{people[ANNA]}")

    assert answer.headers["ETag"] == '"1"'
    assert answer.json() == {
        "userId": str(people[ANNA]),
        "email": ANNA,
        "name": None,
        "operatorRole": None,
        "memberships": [
            {"tenantId": "t1", "role": "TenantAdmin", "blocked": False},
            {"tenantId": "t2", "role": "TenantUser", "blocked": True},
        ],
        "createdAt": "2026-01-01T00:00:00Z",
    }


@pytest.mark.parametrize(
    ("who", "whom"),
    [(AS_ANNA, BELA), (AS_ANNA, DORA), (AS_ANNA, OPS), (AS_CLEO, ANNA), (AS_CLEO, DORA), (AS_HELP, ANNA)],
)
@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_somebody_out_of_sight_is_answered_like_nobody(
    office: Office, people: People, who: str, whom: str, method: str
) -> None:
    body = {"json": {"name": "X"}} if method == "PATCH" else {}
    there, nobody = str(people[whom]), str(uuid4())

    found = await office.ask(who, method, f"/v1/users/{there}", **body)
    absent = await office.ask(who, method, f"/v1/users/{nobody}", **body)

    assert code_of(absent) == (404, "unknown_user")
    assert found.text.replace(there, "<id>") == absent.text.replace(nobody, "<id>")


@pytest.mark.parametrize("user_id", ["00000000-0000-0000-0000-000000000000", "nobody", str(UUID(int=7)), "me"])
async def test_an_identity_that_is_nobodys_is_unknown(office: Office, user_id: str) -> None:
    assert code_of(await office.ask(ADMIN_KEY, "GET", f"/v1/users/{user_id}")) == (404, "unknown_user")


@pytest.mark.parametrize("query", [{"tenantId": "no tenant"}, {"limit": "0"}, {"cursor": "made-up"}])
@pytest.mark.parametrize("path", ["/v1/users", "/v1/invitations"])
async def test_a_malformed_query_is_refused_by_name(office: Office, path: str, query: dict[str, str]) -> None:
    answer = await office.ask(ADMIN_KEY, "GET", path, params=query)

    (name,) = query
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"query/{name}"]


@pytest.mark.parametrize("path", ["/v1/users", "/v1/users/me", "/v1/invitations", "/v1/invitations/x"])
async def test_nothing_is_shown_to_nobody(office: Office, path: str) -> None:
    assert (await office.client.get(path)).status_code == 401
    assert (await office.ask("made-up", "GET", path)).status_code == 401


# Names


async def test_a_user_names_itself(office: Office, people: People) -> None:
    answer = await office.ask(AS_CLEO, "PATCH", "/v1/users/me", json={"name": " Cleo  Ö "}, headers={"If-Match": '"1"'})

    assert (answer.status_code, answer.json()["name"], answer.headers["ETag"]) == (200, "Cleo Ö", '"2"')
    assert (await office.ask(AS_ANNA, "GET", f"/v1/users/{people[CLEO]}")).json()["name"] == "Cleo Ö"
    gone = await office.ask(AS_CLEO, "PATCH", "/v1/users/me", json={"name": None}, headers={"If-Match": '"2"'})
    assert gone.json()["name"] is None


@pytest.mark.usefixtures("people")
async def test_a_name_does_not_overwrite_one_that_was_not_seen(office: Office) -> None:
    await office.ask(AS_CLEO, "PATCH", "/v1/users/me", json={"name": "Cleo"}, headers={"If-Match": '"1"'})

    for headers, expected in (({"If-Match": '"1"'}, 412), ({}, 428)):
        answer = await office.ask(AS_CLEO, "PATCH", "/v1/users/me", json={"name": "Clea"}, headers=headers)
        assert answer.status_code == expected
    assert (await office.ask(AS_CLEO, "GET", "/v1/users/me")).json()["name"] == "Cleo"


@pytest.mark.parametrize("who", [AS_ANNA, AS_OPS, ADMIN_KEY])
async def test_nobody_names_somebody_else(office: Office, people: People, who: str) -> None:
    answer = await office.ask(who, "PATCH", f"/v1/users/{people[CLEO]}", json={"name": "X"}, headers={"If-Match": "*"})

    assert code_of(answer) == (403, "forbidden")
    assert await office.pool.fetchval("SELECT count(*) FROM users WHERE name IS NOT NULL") == 0


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("body", [{"name": ""}, {"name": "a\x07b"}, {"email": "x@example.org"}, {"name": "x" * 201}])
async def test_what_is_no_name_is_refused(office: Office, body: dict[str, Any]) -> None:
    answer = await office.ask(AS_CLEO, "PATCH", "/v1/users/me", json=body, headers={"If-Match": "*"})

    assert answer.status_code == 422


# Roles


def place(people: People, email: str, tenant_id: str) -> str:
    return f"/v1/users/{people[email]}/memberships/{tenant_id}"


async def set_role(office: Office, who: str, path: str, role: str) -> httpx2.Response:
    return await office.ask(who, "PUT", path, json={"role": role})


@pytest.mark.parametrize("who", [AS_ANNA, AS_OPS, ADMIN_KEY])
async def test_an_administrator_changes_what_a_member_is(office: Office, people: People, who: str) -> None:
    answer = await set_role(office, who, place(people, CLEO, "t1"), "TenantAdmin")

    assert answer.status_code == 200
    roles = {each["tenantId"]: each["role"] for each in answer.json()["memberships"]}
    assert roles == ({"t1": "TenantAdmin"} | ({"t2": "TenantUser"} if who in {AS_OPS, ADMIN_KEY} else {}))
    assert (CLEO, "TenantAdmin") in await office.members("t1")
    assert (CLEO, "TenantUser") in await office.members("t2")


async def test_support_makes_nobody_an_administrator_but_an_administrator_a_user(
    office: Office, people: People
) -> None:
    visitor = office.support(HELP, "t1")
    await set_role(office, AS_ANNA, place(people, CLEO, "t1"), "TenantAdmin")

    assert (await set_role(office, visitor, place(people, CLEO, "t1"), "TenantAdmin")).status_code == 403
    assert (await set_role(office, visitor, place(people, CLEO, "t1"), "TenantUser")).status_code == 200


async def test_an_invitation_that_is_open_is_for_the_new_role(office: Office, people: People) -> None:
    user_id = await office.member("new@example.org", "t1", "TenantUser", accepted=False)

    await set_role(office, AS_ANNA, f"/v1/users/{user_id}/memberships/t1", "TenantAdmin")

    assert (await office.invitation_of("t1", "new@example.org"))["role"] == "TenantAdmin"


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(
    ("who", "whom", "tenant_id"),
    [
        (AS_ANNA, BELA, "t2"),
        (AS_ANNA, ANNA, "t2"),
        (AS_ANNA, CLEO, "t2"),
        (AS_ANNA, BELA, "t1"),
        (AS_ANNA, CLEO, "t0"),
        (AS_ANNA, OPS, INSTALLATION),
        (AS_OPS, BELA, "t1"),
        (AS_OPS, BELA, INSTALLATION),
    ],
)
async def test_no_member_and_a_member_out_of_reach_are_answered_alike(
    office: Office, people: People, who: str, whom: str, tenant_id: str, *, method: str
) -> None:
    before = await office.pool.fetch("SELECT * FROM membership ORDER BY tenant_id, user_id")
    body = {"json": {"role": "TenantUser" if tenant_id != INSTALLATION else "SystemAdmin"}} if method == "PUT" else {}
    nobody = str(uuid4())

    answer = await office.ask(who, method, place(people, whom, tenant_id), **body)
    absent = await office.ask(who, method, f"/v1/users/{nobody}/memberships/{tenant_id}", **body)

    assert code_of(answer) == (404, "unknown_member")
    assert answer.text.replace(str(people[whom]), "<id>") == absent.text.replace(nobody, "<id>")
    assert await office.pool.fetch("SELECT * FROM membership ORDER BY tenant_id, user_id") == before


@pytest.mark.parametrize("who", [AS_CLEO, AS_HELP])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_memberships_are_for_administrators(office: Office, people: People, who: str, method: str) -> None:
    body = {"json": {"role": "TenantAdmin"}} if method == "PUT" else {}

    assert code_of(await office.ask(who, method, place(people, CLEO, "t1"), **body)) == (403, "forbidden")


@pytest.mark.parametrize(
    ("who", "whom", "tenant_id", "role"),
    [
        (AS_ANNA, CLEO, "t1", "SystemAdmin"),
        (AS_OPS, CLEO, "t1", "CustomerSupport"),
        (AS_OPS, HELP, INSTALLATION, "TenantAdmin"),
    ],
)
async def test_nobody_is_what_nobody_can_be_there(
    office: Office, people: People, who: str, whom: str, tenant_id: str, *, role: str
) -> None:
    answer = await set_role(office, who, place(people, whom, tenant_id), role)

    assert code_of(answer) == (422, "wrong_role")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/role"]


# Ending


async def test_who_is_removed_is_no_member_there_and_stays_one_elsewhere(office: Office, people: People) -> None:
    assert (await office.ask(AS_ANNA, "DELETE", place(people, CLEO, "t1"))).status_code == 204

    assert await office.members("t1") == {(ANNA, "TenantAdmin")}
    assert (CLEO, "TenantUser") in await office.members("t2")
    assert await office.pool.fetchval("SELECT count(*) FROM invitation WHERE tenant_id = 't1'") == 1


async def test_who_then_belongs_nowhere_is_forgotten(office: Office, people: People) -> None:
    await office.pool.execute("INSERT INTO password VALUES ($1, 'x', now())", people[DORA])

    await office.ask(AS_BELA, "DELETE", place(people, DORA, "t2"))

    assert await office.pool.fetchval("SELECT count(*) FROM users WHERE email = $1", DORA) == 0
    assert await office.pool.fetchval("SELECT count(*) FROM password") == 0
    assert await office.pool.fetchval("SELECT count(*) FROM live_record WHERE tenant_id = ''") == 0


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_who_loses_rights_loses_its_sessions_there_at_once(office: Office, people: People, method: str) -> None:
    await set_role(office, AS_ANNA, place(people, CLEO, "t1"), "TenantAdmin")
    here = [await office.session(people[CLEO], "t1") for _ in range(2)]
    elsewhere = await office.session(people[CLEO], "t2")
    others = await office.session(people[ANNA], "t1")

    body = {"json": {"role": "TenantUser"}} if method == "PUT" else {}
    answer = await office.ask(AS_ANNA, method, place(people, CLEO, "t1"), **body)

    assert answer.is_success
    left = {str(row["session_id"]) for row in await office.pool.fetch("SELECT session_id FROM session")}
    assert left == {elsewhere, others}
    (fact,) = await revocations(office)
    assert (fact.tenant_id, set(fact.session_ids)) == ("t1", set(here))
    revoked = {row["session_id"] for row in await office.pool.fetch("SELECT session_id FROM access_revoked_session")}
    assert revoked == set(here)


async def test_who_gains_rights_or_keeps_them_keeps_its_sessions(office: Office, people: People) -> None:
    session_id = await office.session(people[CLEO], "t1")

    for role in ("TenantUser", "TenantAdmin", "TenantAdmin"):
        assert (await set_role(office, AS_ANNA, place(people, CLEO, "t1"), role)).status_code == 200

    assert str(await office.pool.fetchval("SELECT session_id FROM session")) == session_id
    assert await revocations(office) == []


async def test_an_operator_that_is_none_any_more_loses_its_sessions_in_tenants_too(
    office: Office, people: People
) -> None:
    sessions = {await office.session(people[HELP], each) for each in (INSTALLATION, "t1")}

    assert (await office.ask(AS_OPS, "DELETE", place(people, HELP, INSTALLATION))).status_code == 204

    told = {each for fact in await revocations(office) for each in fact.session_ids}
    assert told == sessions
    assert await office.pool.fetchval("SELECT count(*) FROM session") == 0
    assert await office.pool.fetchval("SELECT count(*) FROM users WHERE email = $1", HELP) == 0


async def test_an_operator_can_be_made_support_and_loses_its_sessions(office: Office, people: People) -> None:
    await office.session(people[OPS], INSTALLATION)

    answer = await set_role(office, ADMIN_KEY, place(people, OPS, INSTALLATION), "CustomerSupport")

    assert answer.json()["operatorRole"] == "CustomerSupport"
    assert await office.pool.fetchval("SELECT count(*) FROM session") == 0


async def test_who_is_let_in_while_being_removed_does_not_stay_in(office: Office, people: People) -> None:
    async with transaction(office.pool) as connection:
        await connection.execute(
            "SELECT FROM membership WHERE user_id = $1 AND tenant_id = 't1' FOR KEY SHARE", people[CLEO]
        )
        removing = asyncio.create_task(office.ask(AS_ANNA, "DELETE", place(people, CLEO, "t1")))
        await eventually(lambda: _waits(office))
        await connection.execute(
            "INSERT INTO session (session_id, user_id, tenant_id, client_id, scope, created_at, refreshed_at, "
            "expires_at) VALUES (gen_random_uuid(), $1, 't1', 'shop', 'read', now(), now(), now())",
            people[CLEO],
        )

    assert (await removing).status_code == 204
    assert await office.pool.fetchval("SELECT count(*) FROM session") == 0
    assert len(await revocations(office)) == 1


async def _waits(office: Office, count: int = 1) -> bool:
    waiting = await office.pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(waiting >= count)


# The last administrator


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("who", [AS_ANNA, AS_OPS])
async def test_the_last_administrator_stays_one(office: Office, people: People, who: str, method: str) -> None:
    await office.member("new@example.org", "t1", "TenantAdmin", accepted=False)  # cannot sign in yet
    session_id = await office.session(people[ANNA], "t1")
    body = {"json": {"role": "TenantUser"}} if method == "PUT" else {}

    answer = await office.ask(who, method, place(people, ANNA, "t1"), **body)

    assert code_of(answer) == (409, "last_administrator")
    assert (ANNA, "TenantAdmin") in await office.members("t1")
    assert str(await office.pool.fetchval("SELECT session_id FROM session")) == session_id
    assert await revocations(office) == []


async def test_one_of_two_administrators_can_go_even_by_itself(office: Office, people: People) -> None:
    await set_role(office, AS_ANNA, place(people, CLEO, "t1"), "TenantAdmin")

    assert (await set_role(office, AS_ANNA, place(people, ANNA, "t1"), "TenantUser")).status_code == 200

    assert await office.members("t1") == {(ANNA, "TenantUser"), (CLEO, "TenantAdmin")}


async def test_an_administrator_that_has_not_accepted_can_go(office: Office, people: People) -> None:
    new = await office.member("new@example.org", "t1", "TenantAdmin", accepted=False)

    assert (await office.ask(AS_ANNA, "DELETE", f"/v1/users/{new}/memberships/t1")).status_code == 204


async def test_one_whose_invitation_was_withdrawn_after_it_was_accepted_counts(office: Office, people: People) -> None:
    await set_role(office, AS_ANNA, place(people, CLEO, "t1"), "TenantAdmin")
    await office.pool.execute("DELETE FROM invitation")

    assert (await office.ask(AS_OPS, "DELETE", place(people, CLEO, "t1"))).status_code == 204
    assert code_of(await office.ask(AS_OPS, "DELETE", place(people, ANNA, "t1"))) == (409, "last_administrator")


async def test_of_administrators_who_remove_each_other_at_once_one_is_left(office: Office, people: People) -> None:
    emails = [f"{number}@example.org" for number in range(4)]
    others = {email: await office.member(email, "t1", "TenantAdmin") for email in emails}
    users = [people[ANNA], *others.values()]

    async with transaction(office.pool) as connection:  # so that all have begun before one goes on
        await connection.execute("SELECT FROM users FOR UPDATE")
        asking = [
            asyncio.create_task(office.ask(AS_OPS, method, f"/v1/users/{each}/memberships/t1", **body))
            for number, each in enumerate(users)
            for method, body in [("PUT", {"json": {"role": "TenantUser"}}) if number % 2 else ("DELETE", {})]
        ]
        await eventually(lambda: _waits(office, len(users)))
    answers = await asyncio.gather(*asking)

    assert sorted(answer.status_code == 409 for answer in answers) == [False] * 4 + [True]
    roles = [role for _, role in await office.members("t1")]
    assert roles.count("TenantAdmin") == 1


# Guessing


@pytest.mark.usefixtures("people")
async def test_of_somebody_who_has_not_accepted_a_tenant_sees_nothing_but_what_it_has_sent(office: Office) -> None:
    named = await office.ask(AS_DORA, "PATCH", "/v1/users/me", json={"name": "Dora"}, headers={"If-Match": "*"})
    assert named.status_code == 200
    paths = [f"/v1/users/{await invited(office, email)}" for email in (DORA, "nobody@example.org")]

    known, unknown = [await office.ask(AS_ANNA, "GET", path) for path in paths]

    assert known.json()["name"] is None
    assert known.headers["ETag"] == unknown.headers["ETag"]
    assert known.json()["createdAt"] == unknown.json()["createdAt"]


async def invited(office: Office, email: str) -> UUID:
    """Have somebody invited by Anna and return who that is."""
    await office.invite(AS_ANNA, email, "TenantUser")
    user_id: UUID = (await office.invitation_of("t1", email))["user_id"]
    return user_id
