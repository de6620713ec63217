"""Signing in at a tenant's own OpenID provider, and everything that must not come of it."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from deploy.local.throwaway import FreshDatabases
from services.identity.caretaking import ARRIVAL, Caretaker
from services.identity.handlers import purge_users
from services.identity.invitations import Token
from services.identity.tests.house import PASSWORD, Challenge, claims_of, sent
from services.identity.tests.organisation import (
    DOMAIN,
    PLACE,
    SECRET,
    TENANT,
    Organisation,
    open_organisation,
    query_of,
)
from shared.contracts.identity import PurgeUsers, SessionsRevoked
from shared.postgres import transaction

ANNA, BELA = f"anna@{DOMAIN}", f"bela@{DOMAIN}"
EVE = "eve@elsewhere.example"


@pytest.fixture
async def org(fresh_database: FreshDatabases) -> AsyncIterator[Organisation]:
    async with open_organisation(await fresh_database("identity")) as organisation:
        await organisation.house.user(ANNA, {TENANT: "TenantAdmin", "other": "TenantUser"})
        organisation.server.know("anna's", email=ANNA, email_verified=True)
        organisation.server.know("bela's", email=BELA, email_verified=True)
        organisation.server.know("eve's", email=EVE, email_verified=True)
        yield organisation


async def users(org: Organisation) -> set[str]:
    return {row["email"] for row in await org.house.pool.fetch("SELECT email FROM users")}


async def refusal(org: Organisation, subject: str, **more: str) -> str:
    """Return what the application is told of somebody who is not let in."""
    answer = await org.visit(subject, None, **more)
    assert answer.status_code == 303, answer.text
    told = sent(answer)
    assert answer.headers["Location"].startswith(f"{PLACE}?")
    assert told["error"] == "access_denied"
    return told["error_description"]


async def test_a_member_gets_in_at_its_organisations_provider(org: Organisation) -> None:
    await org.set_up()

    tokens = await org.sign_in("anna's")

    assert (claims_of(tokens)["tenant_id"], claims_of(tokens)["role"]) == (TENANT, "TenantAdmin")
    me = (await org.house.get("/v1/users/me", tokens["access_token"])).json()
    assert me["email"] == ANNA


async def test_the_provider_is_asked_with_a_nonce_a_challenge_and_a_state_of_this_sign_in(org: Organisation) -> None:
    await org.set_up()

    first, second = [query_of((await org.leave(Challenge.new())).headers["Location"]) for _ in range(2)]

    assert first["redirect_uri"] == f"https://tenure.example.org/oauth/callback/{TENANT}"
    assert (first["code_challenge_method"], first["login_hint"]) == ("S256", ANNA)
    assert all(first[name] != second[name] for name in ("state", "nonce", "code_challenge"))


async def test_what_a_provider_says_counts_in_its_tenant_alone(org: Organisation) -> None:
    await org.set_up()
    tokens = await org.sign_in("anna's")

    moved = await org.house.refresh(tokens["refresh_token"], tenant_id="other")

    assert (moved.status_code, moved.json()["code"]) == (400, "invalid_grant")
    stayed = await org.house.refresh(tokens["refresh_token"])
    assert claims_of(stayed.json())["tenant_id"] == TENANT


async def test_a_provider_vouches_for_the_domains_alone_that_an_operator_has_given_it(org: Organisation) -> None:
    await org.house.user(EVE, {TENANT: "TenantUser"})
    await org.set_up(admits="everyone")

    assert "this domain" in await refusal(org, "eve's")

    await org.set_domains()
    assert "this domain" in await refusal(org, "anna's", tenant_id=TENANT)
    assert await org.house.pool.fetchval("SELECT count(*) FROM provider_account") == 0


async def test_an_address_that_the_provider_has_not_verified_is_nobodys(org: Organisation) -> None:
    await org.set_up()
    org.server.know("somebody's", email=ANNA, email_verified=False)

    assert "does not know" in await refusal(org, "somebody's")


async def test_who_is_no_member_stays_out_unless_everybody_is_admitted(org: Organisation) -> None:
    await org.set_up()
    assert "no member" in await refusal(org, "bela's")
    assert BELA not in await users(org)

    await org.put(admits="everyone")
    tokens = await org.sign_in("bela's")

    assert (claims_of(tokens)["tenant_id"], claims_of(tokens)["role"]) == (TENANT, "TenantUser")
    assert claims_of(await org.sign_in("bela's"))["sub"] == claims_of(tokens)["sub"]


async def test_who_is_invited_accepts_by_coming(org: Organisation) -> None:
    await org.house.user(BELA, {TENANT: "TenantUser"}, password=None, accepted=False)
    await org.set_up()

    tokens = await org.sign_in("bela's")

    assert claims_of(tokens)["role"] == "TenantUser"
    assert await org.house.pool.fetchval("SELECT count(*) FROM invitation WHERE accepted_at IS NULL") == 0


async def test_who_accepts_by_the_mails_link_needs_no_password_where_the_organisation_keeps_them(
    org: Organisation,
) -> None:
    await org.house.user(BELA, {TENANT: "TenantUser"}, password=None, accepted=False)
    token = Token.new()
    await org.house.pool.execute("UPDATE invitation SET token_hash = $1 WHERE accepted_at IS NULL", token.hash)
    await org.set_up(isRequired=True)
    url = "/v1/invitations/accept"

    own = await org.house.client.post(url, json={"token": token.text, "password": PASSWORD})
    none = await org.house.client.post(url, json={"token": token.text})

    assert (own.status_code, own.json()["code"]) == (409, "password_elsewhere")
    assert none.status_code == 200


async def test_an_invitation_that_has_expired_lets_nobody_in(org: Organisation) -> None:
    await org.house.user(BELA, {TENANT: "TenantUser"}, password=None, accepted=False)
    await org.house.pool.execute(
        "UPDATE invitation SET created_at = $1::timestamptz - interval '1 d', expires_at = $1 "
        "WHERE accepted_at IS NULL",
        org.house.clock.now(),
    )
    await org.set_up()

    assert "invitation not accepted" in await refusal(org, "bela's")


async def test_where_the_provider_is_required_no_password_of_ours_opens_the_door(org: Organisation) -> None:
    kept = await org.house.sign_in(ANNA, tenant_id=TENANT)
    await org.set_up(isRequired=True)

    challenge = Challenge.new()
    form = {**await org.house.form(challenge), "tenant_id": TENANT, "email": ANNA, "password": PASSWORD}
    answer = await org.house.post("/oauth/authorize", form)
    assert sent(answer)["error"] == "access_denied"
    assert (await org.house.refresh(kept["refresh_token"])).status_code == 400
    # Elsewhere the password is as good as ever.
    assert claims_of(await org.house.sign_in(ANNA))["tenant_id"] == "other"
    # And on to the provider goes whoever wants to get into the tenant, without a page between.
    asked = {name: value for name, value in form.items() if name != "password"}
    departure = await org.house.client.get("/oauth/authorize", params=asked)
    assert departure.headers["Location"].startswith(f"{org.server.issuer}/oauth2/authorize?")
    assert sent(await org.come_back(await org.recognised(departure, "anna's")))["code"]


async def test_a_provider_is_required_only_after_somebody_has_come_from_it(org: Organisation) -> None:
    anna = await org.token(ANNA, tenant_id=TENANT)
    await org.set_up()

    early = await org.put(anna, isRequired=True)
    await org.sign_in("anna's")
    late = await org.put(anna, isRequired=True)
    other = await org.put(anna, isRequired=True, clientId="another")

    assert (early.status_code, early.json()["code"]) == (409, "not_tried")
    assert late.status_code == 200
    assert (other.status_code, other.json()["code"]) == (409, "not_tried")


async def test_the_page_offers_it_where_there_is_an_organisation(org: Organisation) -> None:
    asked = await org.house.form(Challenge.new())
    asked.pop("form_token")
    before = (await org.house.client.get("/oauth/authorize", params=asked)).text
    await org.set_up()
    after = (await org.house.client.get("/oauth/authorize", params=asked)).text

    assert "/oauth/authorize/organisation" not in before
    assert "/oauth/authorize/organisation" in after


async def test_an_address_of_nobodys_domain_leads_back_to_the_page(org: Organisation) -> None:
    await org.set_up()

    answer = await org.leave(Challenge.new(), email=EVE)

    assert answer.status_code == 404
    assert "No organisation has a sign-in of its own for this e-mail address." in answer.text
    assert f'value="{EVE}"' in answer.text


async def test_nobody_is_taken_back_who_has_not_set_out_with_this_browser(org: Organisation) -> None:
    await org.set_up()
    place = await org.recognised(await org.leave(Challenge.new()), "anna's")
    org.house.client.cookies.delete("tenure_elsewhere")
    asked = org.server.times("/oauth2/token")

    answer = await org.come_back(place)

    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_sign_in")
    assert org.server.times("/oauth2/token") == asked


async def test_what_is_brought_back_must_belong_to_this_sign_in(org: Organisation) -> None:
    await org.set_up()
    stolen = await org.recognised(await org.leave(Challenge.new()), "eve's")
    await org.leave(Challenge.new())

    answer = await org.come_back(stolen)

    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_sign_in")


async def test_who_was_away_for_too_long_begins_again(org: Organisation) -> None:
    await org.set_up()
    place = await org.recognised(await org.leave(Challenge.new()), "anna's")
    await org.house.clock.advance(timedelta(minutes=10, seconds=1).total_seconds())

    assert (await org.come_back(place)).status_code == 403


async def test_a_code_of_one_tenants_provider_is_not_taken_for_another_ones(org: Organisation) -> None:
    await org.house.user("carl@other.example", {"other": "TenantAdmin"})
    await org.set_up()
    await org.set_up(tenant="other", domain="other.example")
    place = await org.recognised(await org.leave(Challenge.new()), "anna's")
    sealed = org.house.client.cookies["tenure_elsewhere"]

    query = place.partition("?")[2]
    answer = await org.house.client.get(
        f"/oauth/callback/other?{query}", headers={"Cookie": f"tenure_elsewhere={sealed}"}
    )

    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_sign_in")


async def test_an_address_that_has_changed_hands_opens_nothing(org: Organisation) -> None:
    await org.set_up()
    await org.sign_in("anna's")
    org.server.know("another anna's", email=ANNA, email_verified=True)

    assert "somebody else by this address" in await refusal(org, "another anna's")


async def test_who_has_another_address_at_the_provider_is_still_the_same(org: Organisation) -> None:
    await org.set_up()
    first = await org.sign_in("anna's")
    org.server.know("anna's", email=f"married@{DOMAIN}", email_verified=True)

    second = await org.sign_in("anna's")

    assert claims_of(second)["sub"] == claims_of(first)["sub"]
    assert await users(org) == {ANNA}


async def test_who_was_put_out_has_to_be_invited_again(org: Organisation) -> None:
    user_id = await org.house.user(BELA, {TENANT: "TenantUser"}, password=None)
    await org.set_up()
    tokens = await org.sign_in("bela's")
    url = f"/v1/users/{user_id}/memberships/{TENANT}"

    assert (await org.house.client.delete(url, headers=org.house.administrator)).status_code == 204

    assert (await org.house.refresh(tokens["refresh_token"])).status_code == 400
    assert "no member" in await refusal(org, "bela's")


@pytest.mark.parametrize("is_moved", [False, True], ids=["another client", "another issuer"])
async def test_another_provider_begins_from_nothing(org: Organisation, *, is_moved: bool) -> None:
    await org.set_up()
    tokens = await org.sign_in("anna's")
    elsewhere = org.server.issuer.replace("localhost", "127.0.0.1")
    change: dict[str, Any] = {"issuer": elsewhere} if is_moved else {"clientId": "another"}

    assert (answer := await org.put(**change)).status_code == 200, answer.text

    assert (await org.house.refresh(tokens["refresh_token"])).status_code == 400
    assert await org.house.pool.fetchval("SELECT count(*) FROM provider_account") == 0
    assert any(isinstance(each, SessionsRevoked) for each in org.house.told())


async def test_without_the_provider_its_sessions_end_and_passwords_are_good_again(org: Organisation) -> None:
    await org.set_up(isRequired=True)
    tokens = await org.sign_in("anna's")
    url = f"/v1/identity-providers/{TENANT}"

    assert (await org.house.client.delete(url, headers=org.house.administrator)).status_code == 204

    assert (await org.house.refresh(tokens["refresh_token"])).status_code == 400
    assert (await org.house.client.get(url, headers=org.house.administrator)).status_code == 404
    assert any(isinstance(each, SessionsRevoked) for each in org.house.told())
    assert claims_of(await org.house.sign_in(ANNA, tenant_id=TENANT))["tenant_id"] == TENANT


async def test_with_a_domain_go_the_sessions_that_it_has_opened(org: Organisation) -> None:
    await org.set_up()
    tokens = await org.sign_in("anna's")

    await org.set_domains(DOMAIN, "more.example")
    kept = await org.house.refresh(tokens["refresh_token"])
    await org.set_domains("more.example")

    assert kept.status_code == 200
    assert (await org.house.refresh(kept.json()["refresh_token"])).status_code == 400


async def test_a_domain_is_one_tenants(org: Organisation) -> None:
    await org.house.user("carl@other.example", {"other": "TenantAdmin"})
    await org.set_up()
    await org.put(tenant="other")

    taken = await org.set_domains(DOMAIN.upper(), tenant="other")

    assert (taken.status_code, taken.json()["code"]) == (409, "domain_taken")


@pytest.mark.parametrize(
    "domain", ["", "example", "-a.example", "a b.example", "a@b.example", "*.example", "ä" * 70 + ".x"]
)
async def test_what_is_no_domain_is_refused(org: Organisation, domain: str) -> None:
    await org.put()

    answer = await org.set_domains(domain)

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/domains/0")


async def test_an_issuer_that_is_none_is_refused_when_it_is_named(org: Organisation) -> None:
    for issuer in ("http://127.0.0.1:1", f"{org.server.issuer}/elsewhere", "https://169.254.169.254"):
        answer = await org.put(issuer=issuer)
        assert (answer.status_code, answer.json()["code"]) == (422, "unusable_issuer"), answer.text
        assert answer.json()["errors"][0]["pointer"] == "/issuer"


async def test_the_secret_is_encrypted_and_never_shown(org: Organisation) -> None:
    shown = (await org.put()).text
    kept: bytes = await org.house.pool.fetchval("SELECT client_secret FROM identity_provider")
    again = await org.put(clientSecret=None, isRequired=True)
    told = [str(each) for each in org.house.told("metrics")]

    assert SECRET not in shown
    assert SECRET.encode() not in kept
    assert again.status_code == 200
    assert await org.house.pool.fetchval("SELECT client_secret FROM identity_provider") == kept
    assert any("identity_provider.registered" in each for each in told)
    assert not any(SECRET in each for each in told)


async def test_the_first_time_a_secret_is_needed(org: Organisation) -> None:
    answer = await org.put(clientSecret=None)

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/clientSecret")


async def test_only_who_administers_the_tenant_for_good_names_its_provider(org: Organisation) -> None:
    await org.house.user(BELA, {TENANT: "TenantUser"})
    await org.house.user("carl@other.example", {"other": "TenantAdmin"})
    operator = await org.house.operator("olga@operators.example", "CustomerSupport")
    olga = await org.token("olga@operators.example")
    support = await org.house.client.post(
        "/v1/support-sessions", json={"tenantId": TENANT, "reason": "a call", "minutes": 5}, headers=olga
    )
    visiting = {"Authorization": f"Bearer {support.json()['accessToken']}"}

    assert operator
    assert (await org.put(await org.token(BELA))).status_code == 403
    assert (await org.put(await org.token("carl@other.example"))).status_code == 404
    assert (await org.put(visiting)).status_code == 403
    assert (await org.put(await org.token(ANNA, tenant_id=TENANT))).status_code == 200


async def test_a_provider_that_is_away_is_told_and_nothing_is_lost(org: Organisation) -> None:
    await org.set_up()
    place = await org.recognised(await org.leave(Challenge.new()), "anna's")

    with org.server.away():
        answer = await org.come_back(place)

    assert (answer.status_code, answer.json()["code"]) == (503, "identity_provider_unavailable")
    assert answer.headers["Retry-After"]
    # The browser still has what it set out with, and the code was not used.
    assert sent(await org.come_back(place))["code"]


async def test_what_the_provider_refuses_the_application_is_told(org: Organisation) -> None:
    await org.set_up()
    departure = await org.leave(Challenge.new())
    state = query_of(departure.headers["Location"])["state"]

    answer = await org.come_back(f"/oauth/callback/{TENANT}?error=access_denied&state={state}")

    assert sent(answer)["error"] == "access_denied"
    assert sent(answer)["state"] == "where I was"


async def test_an_application_that_sends_too_much_along_is_told_so(org: Organisation) -> None:
    await org.set_up()

    answer = await org.leave(Challenge.new(), state="x" * 1999, nonce="y" * 1999)

    assert answer.status_code == 400
    assert "shorten `state`" in answer.text


async def test_of_a_tenant_that_goes_nothing_stays(org: Organisation) -> None:
    await org.set_up(admits="everyone")
    await org.sign_in("bela's")

    async with transaction(org.house.pool) as connection:
        await purge_users(connection, [PurgeUsers(tenant_id=TENANT)], clock=org.house.clock)
    await org.house.clock.advance(ARRIVAL.total_seconds())
    await Caretaker(org.house.pool, None, clock=org.house.clock).look()

    left = await org.house.pool.fetch("SELECT place FROM live_record WHERE tenant_id = $1", TENANT)
    assert [row["place"] for row in left] == []
    assert (await org.leave(Challenge.new())).status_code == 404
