"""What the audit trail is told: who decided what, of which tenant, before and after; nothing of what was refused."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import orjson
import pytest

from services.identity.tests.house import APPLICATION, PASSWORD, PLACE, Challenge, House
from shared.contracts.base import INSTALLATION, Decision

ANNA, BELA, CLEO, OTTO = "anna@example.org", "bela@example.org", "cleo@example.org", "otto@example.org"
ANOTHER = "a very different password"
ROOT = "system-administrator"

People = dict[str, UUID]


@pytest.fixture(autouse=True)
async def people(house: House) -> People:
    return {
        ANNA: await house.user(ANNA, {"t1": "TenantAdmin", "t2": "TenantUser"}),
        BELA: await house.user(BELA, {"t1": "TenantUser"}),
        CLEO: await house.user(CLEO, {"t2": "TenantAdmin"}),
        OTTO: await house.operator(OTTO, "CustomerSupport"),
    }


class Trail:
    """What the trail was told since the last look."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._seen = len(self._all())

    def _all(self) -> list[Decision]:
        return [each for each in self._house.told("metrics") if isinstance(each, Decision)]

    def news(self) -> Sequence[Decision]:
        seen, self._seen = self._seen, len(self._all())
        return self._all()[seen:]

    def new(self) -> Decision:
        (one,) = self.news()
        return one


@pytest.fixture
def trail(house: House, people: People) -> Trail:
    return Trail(house)


def who(decision: Decision) -> tuple[str, str | None, str, str]:
    """Return who did what, as what, to which tenant."""
    return decision.actor, decision.role, decision.action, decision.tenant_id


async def ask(house: House, token: str, method: str, path: str, json: Any = None, **headers: str) -> httpx2.Response:
    return await house.client.request(method, path, json=json, headers={"Authorization": f"Bearer {token}", **headers})


async def signed_in(house: House, email: str, **more: str) -> str:
    token: str = (await house.sign_in(email, **more))["access_token"]
    return token


async def begun(house: House, trail: Trail, email: str, **more: str) -> tuple[str, str]:
    """Sign somebody in and return the token and what the trail calls the session."""
    token = await signed_in(house, email, **more)
    return token, trail.new().subject


async def test_a_sign_in_is_in_the_trail_of_the_tenant_that_it_led_to(
    house: House, trail: Trail, people: People
) -> None:
    tokens = await house.sign_in(ANNA, tenant_id="t1")
    decision = trail.new()

    assert who(decision) == (f"user:{people[ANNA]}", "TenantAdmin", "session.begun", "t1")
    assert (decision.before, decision.after) == (None, {"clientId": APPLICATION})
    assert decision.subject.startswith("session:")
    assert decision.decided_at == house.clock.now()

    again = (await house.refresh(tokens["refresh_token"])).json()
    assert not trail.news()
    await house.refresh(again["refresh_token"], tenant_id="t2")
    moved = trail.new()
    assert who(moved) == (f"user:{people[ANNA]}", "TenantUser", "session.moved", "t2")
    assert "t1" not in moved.model_dump_json(exclude={"subject"})


async def test_a_sign_in_that_failed_is_not(house: House, trail: Trail) -> None:
    form = await house.form(Challenge.new())
    answer = await house.post("/oauth/authorize", {**form, "email": ANNA, "password": "something else"})

    assert answer.status_code == 401
    assert not trail.news()


async def test_an_ended_session_tells_who_ended_it(house: House, trail: Trail, people: People) -> None:
    anna, _ = await begun(house, trail, ANNA, tenant_id="t1")
    bela, session = await begun(house, trail, BELA)
    path = f"/v1/sessions/{session.removeprefix('session:')}"

    assert (await ask(house, await signed_in(house, CLEO), "DELETE", path)).status_code == 404
    assert [each.action for each in trail.news()] == ["session.begun"]
    assert (await ask(house, anna, "DELETE", path)).status_code == 204

    decision = trail.new()
    assert who(decision) == (f"user:{people[ANNA]}", "TenantAdmin", "session.ended", "t1")
    assert (decision.subject, decision.before) == (session, {"userId": str(people[BELA])})
    assert (await ask(house, bela, "GET", "/v1/sessions")).status_code == 401


async def test_a_session_that_its_user_ends_or_that_somebody_stole_is_in_the_trail(
    house: House, trail: Trail, people: People
) -> None:
    first, second = await house.sign_in(BELA), await house.sign_in(BELA)
    trail.news()

    await house.post("/oauth/revoke", {"token": first["refresh_token"]})
    assert who(trail.new()) == (f"user:{people[BELA]}", None, "session.ended", "t1")

    await house.refresh(second["refresh_token"])
    assert (await house.refresh(second["refresh_token"])).status_code == 400
    stolen = trail.new()
    assert who(stolen) == ("identity", None, "session.ended", "t1")
    assert stolen.reason == "A refresh token was used twice."


async def test_a_session_whose_time_is_over_is_nobodys_decision(house: House, trail: Trail) -> None:
    tokens = await house.sign_in(BELA)
    trail.news()
    await house.clock.advance(timedelta(days=100).total_seconds())

    assert (await house.refresh(tokens["refresh_token"])).status_code == 400
    assert not trail.news()


async def test_support_is_in_the_trail_of_the_tenant_with_its_reason_and_so_is_what_it_does(
    house: House, trail: Trail, people: People
) -> None:
    otto, _ = await begun(house, trail, OTTO)
    body = {"tenantId": "t1", "reason": "Ticket 7", "minutes": 5}
    answer = await ask(house, otto, "POST", "/v1/support-sessions", body)
    session = answer.json()

    decision = trail.new()
    assert who(decision) == (f"user:{people[OTTO]}", "CustomerSupport", "support.begun", "t1")
    assert (decision.reason, decision.after) == ("Ticket 7", {"minutes": 5})
    assert decision.subject == f"session:{session['sessionId']}"

    invited = {"email": "new@example.org", "role": "TenantUser"}
    answer = await ask(house, session["accessToken"], "POST", "/v1/invitations", invited)
    assert answer.status_code == 201
    invitation = trail.new()
    assert who(invitation) == (f"user:{people[OTTO]}", "CustomerSupport", "invitation.made", "t1")
    assert invitation.reason == "Ticket 7"


async def test_an_application_that_is_registered_changed_or_deleted_is_in_the_trail(house: House, trail: Trail) -> None:
    client, root = f"/v1/clients/{APPLICATION}", house.administrator["Authorization"].removeprefix("Bearer ")
    uris = {"redirectUris": [PLACE]}
    await ask(house, root, "PUT", "/v1/clients/desk", {"name": "The desk", **uris})
    registered = trail.new()
    assert who(registered) == (ROOT, "SystemAdmin", "client.registered", INSTALLATION)
    assert (registered.before, registered.after) == (None, {"name": "The desk", **uris})

    await ask(house, root, "PUT", client, {"name": "The shop", **uris})
    assert not trail.news(), "nothing has changed"
    await ask(house, root, "PUT", client, {"name": "Another shop", **uris})
    changed = trail.new()
    assert (changed.action, changed.subject) == ("client.changed", f"client:{APPLICATION}")
    assert (changed.before, changed.after) == ({"name": "The shop"}, {"name": "Another shop"})

    assert (await ask(house, root, "DELETE", "/v1/clients/nothing")).status_code == 404
    assert not trail.news()
    assert (await ask(house, root, "DELETE", client)).status_code == 204
    deleted = trail.new()
    assert (deleted.action, deleted.before, deleted.after) == (
        "client.deleted",
        {"name": "Another shop", **uris},
        None,
    )


async def test_a_changed_password_is_in_the_trail_and_what_it_was_is_not(
    house: House, trail: Trail, people: People
) -> None:
    bela, _ = await begun(house, trail, BELA)
    path = "/v1/users/me/password"
    wrong = {"currentPassword": ANOTHER, "newPassword": ANOTHER}
    assert (await ask(house, bela, "PUT", path, wrong)).status_code == 422
    assert not trail.news()

    right = {"currentPassword": PASSWORD, "newPassword": ANOTHER}
    assert (await ask(house, bela, "PUT", path, right)).status_code == 204
    decision = trail.new()
    assert who(decision) == (f"user:{people[BELA]}", "TenantUser", "password.changed", "t1")
    assert (decision.before, decision.after) == (None, {"endedSessions": 0})


async def test_of_a_name_only_that_it_was_changed_is_told(house: House, trail: Trail, people: People) -> None:
    bela, _ = await begun(house, trail, BELA)
    etag = (await ask(house, bela, "GET", "/v1/users/me")).headers["ETag"]
    await ask(house, bela, "PATCH", "/v1/users/me", {"name": "Béla"}, **{"If-Match": etag})

    decision = trail.new()
    assert who(decision) == (f"user:{people[BELA]}", "TenantUser", "user.changed", "t1")
    assert (decision.subject, decision.before, decision.after) == (decision.actor, {}, {"name": "…"})

    etag = (await ask(house, bela, "GET", "/v1/users/me")).headers["ETag"]
    await ask(house, bela, "PATCH", "/v1/users/me", {"name": "Béla"}, **{"If-Match": etag})
    assert not trail.news(), "nothing has changed"


async def test_what_becomes_of_a_key_is_in_the_trail(house: House, trail: Trail, people: People) -> None:
    anna, _ = await begun(house, trail, ANNA, tenant_id="t1")
    body = {"name": "ci", "role": "TenantUser", "scopes": ["usage:write"]}
    key = (await ask(house, anna, "POST", "/v1/api-keys", body)).json()
    issued = trail.new()
    assert who(issued) == (f"user:{people[ANNA]}", "TenantAdmin", "api_key.issued", "t1")
    assert (issued.subject, issued.before) == (f"api-key:{key['keyId']}", None)
    assert issued.after == {"name": "ci", "role": "TenantUser", "scopes": ["usage:write"], "expiresAt": None}

    rotated_key = (await ask(house, anna, "POST", f"/v1/api-keys/{key['keyId']}/rotate")).json()
    rotated = trail.new()
    assert (rotated.action, rotated.before) == ("api_key.rotated", {"revision": 1})
    overlap = house.clock.now() + timedelta(days=1)
    assert rotated.after == {"revision": 2, "overlapUntil": overlap.isoformat()}

    for _ in range(2):  # revoking once more changes nothing
        assert (await ask(house, anna, "DELETE", f"/v1/api-keys/{key['keyId']}")).status_code == 204
    revoked = trail.new()
    assert (revoked.action, revoked.before, revoked.after) == (
        "api_key.revoked",
        {"isRevoked": False},
        {"isRevoked": True},
    )
    for text in (key["key"], rotated_key["key"]):
        assert text not in _dump(issued, rotated, revoked)


async def test_a_refused_key_is_not(house: House, trail: Trail) -> None:
    anna, _ = await begun(house, trail, ANNA, tenant_id="t1")
    body = {"name": "ci", "tenantId": "t2"}

    assert (await ask(house, anna, "POST", "/v1/api-keys", body)).status_code == 404
    assert not trail.news()


async def test_what_becomes_of_an_invitation_is_in_the_trail(house: House, trail: Trail, people: People) -> None:
    anna, _ = await begun(house, trail, ANNA, tenant_id="t1")
    body = {"email": "new@example.org", "role": "TenantUser"}
    invitation = (await ask(house, anna, "POST", "/v1/invitations", body)).json()
    made = trail.new()
    assert who(made) == (f"user:{people[ANNA]}", "TenantAdmin", "invitation.made", "t1")
    assert made.subject == f"invitation:{invitation['invitationId']}"
    user_id = str(await house.pool.fetchval("SELECT user_id FROM users WHERE email = 'new@example.org'"))
    assert made.after is not None
    assert (made.after["userId"], made.after["role"]) == (user_id, "TenantUser")

    assert (await ask(house, anna, "POST", "/v1/invitations", body)).status_code == 200
    assert not trail.news(), "it is open already"
    await house.clock.advance(60)
    path = f"/v1/invitations/{invitation['invitationId']}"
    assert (await ask(house, anna, "POST", f"{path}/resend")).status_code == 202
    resent = trail.new()
    assert (resent.action, resent.subject, resent.before) == (
        "invitation.resent",
        made.subject,
        {"expiresAt": made.after["expiresAt"]},
    )

    assert (await ask(house, anna, "DELETE", path)).status_code == 204
    withdrawn = trail.new()
    assert (withdrawn.action, withdrawn.before, withdrawn.after) == (
        "invitation.withdrawn",
        {"userId": user_id, "role": "TenantUser", "isAccepted": False},
        None,
    )
    assert (await ask(house, anna, "DELETE", path)).status_code == 404
    assert not trail.news()
    assert "example.org" not in _dump(made, resent, withdrawn)


async def test_an_invitation_that_has_expired_and_is_made_again_is_renewed(house: House, trail: Trail) -> None:
    root = house.administrator["Authorization"].removeprefix("Bearer ")
    body = {"email": "new@example.org", "role": "TenantUser", "tenantId": "t1"}
    await ask(house, root, "POST", "/v1/invitations", body)
    await house.clock.advance(timedelta(days=100).total_seconds())
    await ask(house, root, "POST", "/v1/invitations", body)

    assert [who(each) for each in trail.news()] == [
        (ROOT, "SystemAdmin", "invitation.made", "t1"),
        (ROOT, "SystemAdmin", "invitation.renewed", "t1"),
    ]


async def test_whoever_accepts_is_in_the_trail_and_the_password_that_it_sets_is_not(house: House, trail: Trail) -> None:
    user_id = await house.user("new@example.org", {"t1": "TenantUser"}, password=None, accepted=False)
    await house.pool.execute("UPDATE invitation SET token_hash = sha256('token') WHERE user_id = $1", user_id)
    weak = {"token": "token", "password": "new@example.org"}
    assert (await house.client.post("/v1/invitations/accept", json=weak)).status_code == 422
    assert not trail.news()
    accepted = await house.client.post("/v1/invitations/accept", json={"token": "token", "password": ANOTHER})
    assert accepted.status_code == 200

    acceptance, password = trail.news()
    assert who(acceptance) == (f"user:{user_id}", "TenantUser", "invitation.accepted", "t1")
    assert acceptance.after == {"userId": str(user_id), "role": "TenantUser"}
    assert who(password) == (f"user:{user_id}", "TenantUser", "password.set", "t1")
    assert password.subject == f"user:{user_id}"
    assert ANOTHER not in _dump(acceptance, password)


async def test_what_somebody_is_in_a_tenant_is_in_the_trail(house: House, trail: Trail, people: People) -> None:
    anna, _ = await begun(house, trail, ANNA, tenant_id="t1")
    path = f"/v1/users/{people[BELA]}/memberships/t1"
    await ask(house, anna, "PUT", path, {"role": "TenantUser"})
    assert not trail.news(), "that is what it was"
    await ask(house, anna, "PUT", path, {"role": "TenantAdmin"})
    changed = trail.new()
    assert who(changed) == (f"user:{people[ANNA]}", "TenantAdmin", "membership.role_changed", "t1")
    assert (changed.subject, changed.before, changed.after) == (
        f"user:{people[BELA]}",
        {"role": "TenantUser"},
        {"role": "TenantAdmin"},
    )

    assert (await ask(house, anna, "DELETE", path)).status_code == 204
    ended = trail.new()
    assert (ended.action, ended.subject, ended.before, ended.after) == (
        "membership.ended",
        changed.subject,
        {"role": "TenantAdmin"},
        None,
    )
    last = f"/v1/users/{people[ANNA]}/memberships/t1"
    assert (await ask(house, anna, "DELETE", last)).status_code == 409
    assert not trail.news()


async def test_a_signing_key_that_somebody_replaces_is_in_the_trail(house: House, trail: Trail) -> None:
    root = house.administrator["Authorization"].removeprefix("Bearer ")
    await ask(house, root, "POST", "/v1/signing-keys/rotate")

    decision = trail.new()
    assert who(decision) == (ROOT, "SystemAdmin", "signing_key.rotated", INSTALLATION)
    assert decision.after == {"activeAt": (house.clock.now() + timedelta(seconds=30)).isoformat()}


async def test_a_decision_that_cannot_be_told_is_not_taken(
    house: House, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna, _ = await begun(house, trail, ANNA, tenant_id="t1")

    async def fail(*_: object, **__: object) -> None:
        raise asyncpg.DiskFullError("no room")

    monkeypatch.setattr("shared.changes.outbox.insert", fail)
    answer = await ask(house, anna, "POST", "/v1/api-keys", {"name": "ci"})

    assert answer.status_code >= 500
    assert await house.pool.fetchval("SELECT count(*) FROM api_key") == 0
    assert not trail.news()


def _dump(*decisions: Decision) -> str:
    return "".join(orjson.dumps(each.model_dump(mode="json")).decode() for each in decisions)
