"""Signing in for an application: the page, the code, and the tokens that come of it."""

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from services.identity.tests.house import APPLICATION, ISSUER, PASSWORD, PLACE, Challenge, House, sent
from shared.access.tokens import SKEW
from shared.contracts.identity import SessionsRevoked

ANNA = "anna@example.org"


@pytest.fixture(autouse=True)
async def anna(house: House) -> None:
    await house.user(ANNA, {"t1": "TenantAdmin", "t2": "TenantUser"})


async def test_somebody_who_signs_in_gets_tokens_for_one_tenant(house: House) -> None:
    tokens = await house.sign_in(ANNA)

    keys = KeySet.import_key_set((await house.client.get("/.well-known/jwks.json")).json())
    token = jwt.decode(tokens["access_token"], keys, algorithms=["ES256"])
    assert token.header["typ"] == "at+jwt"
    claims = token.claims
    assert claims.keys() == {
        "iss", "sub", "aud", "exp", "iat", "nbf", "jti", "sid", "client_id", "role", "scope", "epoch", "tenant_id"
    }  # fmt: skip
    assert (claims["iss"], claims["aud"], claims["client_id"]) == (ISSUER, "tenure", APPLICATION)
    assert (claims["tenant_id"], claims["role"], claims["scope"]) == ("t1", "TenantAdmin", "read write")
    assert (claims["exp"] - claims["iat"], tokens["expires_in"], tokens["token_type"]) == (600, 600, "Bearer")


async def test_the_access_token_opens_the_interface(house: House) -> None:
    tokens = await house.sign_in(ANNA)

    answer = await house.get("/v1/sessions", tokens["access_token"])

    assert [(each["tenantId"], each["isCurrent"]) for each in answer.json()["items"]] == [("t1", True)]


async def test_somebody_gets_into_the_tenant_that_is_asked_for(house: House) -> None:
    tokens = await house.sign_in(ANNA, tenant_id="t2")

    (session,) = (await house.get("/v1/sessions", tokens["access_token"])).json()["items"]
    assert session["tenantId"] == "t2"


async def test_somebody_gets_into_the_tenant_that_was_used_last(house: House) -> None:
    await house.sign_in(ANNA, tenant_id="t1")
    await house.clock.advance(60)
    await house.sign_in(ANNA, tenant_id="t2")
    await house.clock.advance(60)

    tokens = await house.sign_in(ANNA)

    sessions = (await house.get("/v1/sessions", tokens["access_token"])).json()["items"]
    assert [each["tenantId"] for each in sessions if each["isCurrent"]] == ["t2"]


async def test_the_application_is_sent_the_code_with_its_state_and_who_says_so(house: House) -> None:
    form = await house.form(Challenge.new())

    answer = await house.post("/oauth/authorize", {**form, "email": ANNA, "password": PASSWORD})

    assert answer.headers["Location"].startswith(f"{PLACE}?")
    assert (sent(answer)["state"], sent(answer)["iss"]) == ("where I was", ISSUER)
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("email", "password"),
    [(ANNA, "another long password"), ("nobody@example.org", PASSWORD), (ANNA, "x"), ("no address", PASSWORD)],
)
async def test_who_is_wrong_sees_the_page_again_and_not_why(house: House, email: str, password: str) -> None:
    form = await house.form(Challenge.new())

    answer = await house.post("/oauth/authorize", {**form, "email": email, "password": password})

    assert answer.status_code == 401
    assert "E-mail address or password is not right." in answer.text
    assert PASSWORD not in answer.text


async def test_a_user_without_a_password_gets_in_by_none(house: House) -> None:
    await house.user("bela@example.org", {"t1": "TenantUser"}, password=None)
    form = await house.form(Challenge.new())

    answer = await house.post("/oauth/authorize", {**form, "email": "bela@example.org", "password": "x"})

    assert answer.status_code == 401


async def test_who_has_not_accepted_the_invitation_gets_in_nowhere(house: House) -> None:
    await house.user("bela@example.org", {"t1": "TenantUser"}, accepted=False)
    form = await house.form(Challenge.new())

    answer = await house.post("/oauth/authorize", {**form, "email": "bela@example.org", "password": PASSWORD})

    assert sent(answer)["error"] == "access_denied"


async def test_nobody_gets_into_a_tenant_of_others_or_a_blocked_one(house: House) -> None:
    await house.pool.execute("INSERT INTO tenant_block VALUES ('t2', 'unpaid', now())")
    for tenant_id in ("t2", "t3", "_"):
        form = await house.form(Challenge.new(), tenant_id=tenant_id)
        answer = await house.post("/oauth/authorize", {**form, "email": ANNA, "password": PASSWORD})
        assert sent(answer)["error"] == "access_denied", tenant_id


async def test_a_form_that_another_page_sends_signs_nobody_in(house: House) -> None:
    form = await house.form(Challenge.new())
    filled = {**form, "email": ANNA, "password": PASSWORD}

    assert (await house.post("/oauth/authorize", {**filled, "form_token": "guessed"})).status_code == 403
    house.client.cookies.clear()
    assert (await house.post("/oauth/authorize", filled)).status_code == 403
    assert (await house.post("/oauth/authorize", {**filled, "form_token": ""})).status_code == 403


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"client_id": "unknown"}, "unknown_client"),
        ({"redirect_uri": "https://evil.example.org/"}, "unknown_redirect_uri"),
        ({"redirect_uri": f"{PLACE}/further"}, "unknown_redirect_uri"),
        ({"redirect_uri": f"{PLACE}?more"}, "unknown_redirect_uri"),
        ({"response_type": "token"}, "validation_failed"),
        ({"code_challenge_method": "plain"}, "validation_failed"),
        ({"code_challenge": "short"}, "validation_failed"),
    ],
)
async def test_nobody_is_sent_anywhere_by_a_request_that_is_not_right(
    house: House, change: dict[str, str], code: str
) -> None:
    asked = {
        "response_type": "code",
        "client_id": APPLICATION,
        "redirect_uri": PLACE,
        "code_challenge": Challenge.new().challenge,
        "code_challenge_method": "S256",
    }

    answer = await house.client.get("/oauth/authorize", params={**asked, **change})

    assert answer.status_code in {400, 422}
    assert answer.json()["code"] == code
    assert "Location" not in answer.headers


async def test_what_the_page_is_given_is_shown_as_text(house: House) -> None:
    form = await house.form(Challenge.new())
    hostile = '"><script>alert(1)</script>@example.org'

    answer = await house.post("/oauth/authorize", {**form, "email": hostile, "password": "wrong"})
    page = await house.client.get("/oauth/authorize", params={**form, "login_hint": hostile})

    for each in (answer, page):
        assert "<script>" not in each.text
        assert "default-src 'none'" in each.headers["Content-Security-Policy"]
        assert each.headers["X-Frame-Options"] == "DENY"


async def test_a_code_is_good_once_and_a_second_exchange_ends_the_session(house: House) -> None:
    challenge = Challenge.new()
    code = await house.code(ANNA, challenge)
    tokens = (await house.exchange(code, challenge)).json()

    again = await house.exchange(code, challenge)

    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert (await house.get("/v1/sessions", tokens["access_token"])).status_code == 401
    assert (await house.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"client_id": "other"}, "invalid_grant"),
        ({"redirect_uri": "https://shop.example.org/elsewhere"}, "invalid_grant"),
        ({"code_verifier": "x" * 43}, "invalid_grant"),
        ({"code": "guessed"}, "invalid_grant"),
        ({"code": ""}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
    ],
)
async def test_a_code_is_good_for_its_application_alone(house: House, change: dict[str, str], error: str) -> None:
    challenge = Challenge.new()
    code = await house.code(ANNA, challenge)

    answer = await house.exchange(code, challenge, **change)

    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert answer.headers["Cache-Control"] == "no-store"


async def test_a_code_is_good_for_a_minute(house: House) -> None:
    challenge = Challenge.new()
    code = await house.code(ANNA, challenge)
    await house.clock.advance(60)

    assert (await house.exchange(code, challenge)).json()["error"] == "invalid_grant"


async def test_a_refresh_token_is_good_once_and_a_replayed_one_ends_the_session(house: House) -> None:
    first = await house.sign_in(ANNA)
    second = (await house.refresh(first["refresh_token"])).json()

    replayed = await house.refresh(first["refresh_token"])

    assert (replayed.status_code, replayed.json()["error"]) == (400, "invalid_grant")
    # Whoever has the newer one, the thief or the user, has nothing any more.
    assert (await house.refresh(second["refresh_token"])).json()["error"] == "invalid_grant"
    for tokens in (first, second):
        assert (await house.get("/v1/sessions", tokens["access_token"])).status_code == 401
    told = [fact for fact in house.told() if isinstance(fact, SessionsRevoked)]
    assert [len(fact.session_ids) for fact in told] == [1]


async def test_a_refresh_goes_on_in_another_tenant_of_the_user_and_in_no_other(house: House) -> None:
    tokens = await house.sign_in(ANNA, tenant_id="t1")

    assert (await house.refresh(tokens["refresh_token"], tenant_id="t3")).json()["error"] == "invalid_grant"
    switched = (await house.refresh(tokens["refresh_token"], tenant_id="t2")).json()

    answer = await house.get("/v1/sessions", switched["access_token"])
    assert [each["tenantId"] for each in answer.json()["items"]] == ["t2"]


async def test_a_session_that_is_not_refreshed_ends(house: House) -> None:
    tokens = await house.sign_in(ANNA)
    await house.clock.advance(timedelta(days=14).total_seconds())

    assert (await house.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_session_ends_however_often_it_is_refreshed(house: House) -> None:
    tokens = await house.sign_in(ANNA)
    for _ in range(9):
        await house.clock.advance(timedelta(days=10).total_seconds())
        answer = await house.refresh(tokens["refresh_token"])
        tokens = answer.json()

    assert answer.json()["error"] == "invalid_grant"


async def test_a_token_that_is_given_back_ends_its_session(house: House) -> None:
    tokens = await house.sign_in(ANNA)

    assert (await house.post("/oauth/revoke", {"token": tokens["refresh_token"]})).status_code == 200
    assert (await house.post("/oauth/revoke", {"token": "unknown"})).status_code == 200

    assert (await house.get("/v1/sessions", tokens["access_token"])).status_code == 401


async def test_an_application_that_asks_is_told_who_has_signed_in(house: House) -> None:
    tokens = await house.sign_in(ANNA, scope="openid read", nonce="n-1")

    keys = KeySet.import_key_set((await house.client.get("/.well-known/jwks.json")).json())
    claims = jwt.decode(tokens["id_token"], keys, algorithms=["ES256"]).claims
    assert (claims["iss"], claims["aud"], claims["nonce"], claims["email"]) == (ISSUER, APPLICATION, "n-1", ANNA)
    # It is no key to the interface.
    assert (await house.get("/v1/sessions", tokens["id_token"])).status_code == 401


async def test_a_scope_bounds_what_a_token_is_good_for(house: House) -> None:
    tokens = await house.sign_in(ANNA, scope="sessions:read")
    (session,) = (await house.get("/v1/sessions", tokens["access_token"])).json()["items"]

    refused = await house.client.delete(
        f"/v1/sessions/{session['sessionId']}", headers={"Authorization": f"Bearer {tokens['access_token']}"}
    )

    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")


async def test_the_discovery_document_names_what_answers(house: House) -> None:
    document = (await house.client.get("/.well-known/openid-configuration")).json()

    assert document["issuer"] == ISSUER
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "revocation_endpoint"):
        path = urlsplit(document[name]).path
        assert (await house.client.get(path)).status_code != 404
        assert document[name].startswith(ISSUER)


async def test_the_password_is_kept_nowhere(house: House) -> None:
    tokens = await house.sign_in(ANNA)
    tables = await house.pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")

    for table in tables:
        rows = await house.pool.fetch(f'SELECT t::text AS row FROM "{table["tablename"]}" AS t')
        for row in rows:
            assert PASSWORD not in row["row"]
            assert tokens["refresh_token"] not in row["row"]
            assert '"d":' not in row["row"].replace("\\", "")  # no private key in clear


@pytest.mark.parametrize(
    ("path", "form", "pointer"),
    [
        ("/oauth/token", {}, "/grant_type"),
        ("/oauth/token", {"grant_type": "ä"}, "/grant_type"),
        ("/oauth/token", {"grant_type": "refresh_token", "scope": "ä"}, "/scope"),
        ("/oauth/revoke", {}, "/token"),
    ],
)
async def test_a_form_that_does_not_fit_is_refused_as_oauth_has_it(
    house: House, path: str, form: dict[str, str], pointer: str
) -> None:
    answer = await house.post(path, form)

    problem = answer.json()
    assert (answer.status_code, problem["error"], problem["code"]) == (400, "invalid_request", "invalid_request")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]


@pytest.mark.parametrize(("days", "expires_in"), [(None, 600), (1, 600)])
async def test_an_api_key_gets_a_token(house: House, days: int | None, expires_in: int) -> None:
    tokens = await tokens_of_a_key(house, expiresInDays=days)

    assert tokens["expires_in"] == expires_in


async def test_a_token_for_an_api_key_is_good_no_longer_than_the_key(house: House) -> None:
    tokens = await tokens_of_a_key(house, expiresAt=(house.clock.now() + timedelta(seconds=90)).isoformat())

    assert tokens["expires_in"] == 90
    assert (await house.get("/v1/users", tokens["access_token"])).status_code == 200
    await house.clock.advance(90 + SKEW.total_seconds())
    assert (await house.get("/v1/users", tokens["access_token"])).status_code == 401


async def tokens_of_a_key(house: House, **order: Any) -> dict[str, Any]:
    """Make an API key of t1 and return what it is exchanged for."""
    body = {"name": "nightly", "tenantId": "t1", **order}
    key = (await house.client.post("/v1/api-keys", json=body, headers=house.administrator)).json()
    form = {"grant_type": "client_credentials", "client_id": key["keyId"], "client_secret": key["key"]}
    answer = await house.post("/oauth/token", form)
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens
