"""A tenant's own OpenID provider: what is asked of it, what is believed, and what becomes of nonsense."""

import time
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

import pytest
from structlog.testing import capture_logs

from services.identity.providers import oidc
from services.identity.providers.discovery import Discovery
from services.identity.providers.network import AddressNotAllowedError, ProviderClient
from services.identity.providers.oidc import OidcRegistration
from services.identity.providers.port import Password, ProviderUnavailableError, Recognised
from services.identity.tests.oidc_kit import REDIRECT_URI, OidcKit, challenge_of, open_oidc_kit
from shared.clock import ManualClock

ANNA = "anna@example.org"
ISSUER = "https://id.example.com/acme"
SAYS: Mapping[str, Any] = {
    "issuer": ISSUER,
    "authorization_endpoint": "https://id.example.com/authorize",
    "token_endpoint": "https://id.example.com/token",
    "jwks_uri": "https://keys.example.com/",
    "userinfo_endpoint": "https://id.example.com/me",
    "response_types_supported": ["code"],
}


@pytest.fixture
async def kit() -> AsyncIterator[OidcKit]:
    async with open_oidc_kit() as kit:
        yield kit


class Publisher(ProviderClient):
    """Answers with documents, and counts."""

    def __init__(self, documents: dict[str, Mapping[str, Any]]) -> None:
        super().__init__()
        self.documents = documents
        self.asked: list[str] = []

    async def get_document(self, url: str) -> Mapping[str, Any]:
        self.asked.append(url)
        return self.documents[url]


def publisher(at: str = ISSUER, **changes: Any) -> Publisher:
    said = {name: value for name, value in ({**SAYS, **changes}).items() if value is not None}
    return Publisher({f"{at.rstrip('/')}/.well-known/openid-configuration": said})


def reasons(lines: list[Any]) -> list[str]:
    return [line["reason"] for line in lines if line["action"] == "id_token_refused"]


async def test_somebody_who_comes_back_from_the_provider_is_recognised_and_is_the_same_the_next_time(
    kit: OidcKit,
) -> None:
    await kit.make(ANNA)

    first = await kit.provider.recognise(await kit.proof(ANNA))
    again = await kit.provider.recognise(await kit.proof(ANNA))

    assert first == again == Recognised(kit.subjects[ANNA], ANNA)


async def test_a_browser_is_sent_with_everything_that_binds_the_answer_to_it(kit: OidcKit) -> None:
    url = await kit.provider.authorization_url(state="s", nonce="n", challenge="c", login_hint="anna+1@example.org")

    assert url.startswith(f"{kit.server.issuer}/oauth2/authorize?")
    assert parse_qs(urlsplit(url).query) == {
        "response_type": ["code"],
        "client_id": ["tenure-acme"],
        "redirect_uri": [REDIRECT_URI],
        "scope": ["openid email profile"],
        "state": ["s"],
        "nonce": ["n"],
        "code_challenge": ["c"],
        "code_challenge_method": ["S256"],
        "login_hint": ["anna+1@example.org"],
    }


async def test_the_provider_gets_challenge_nonce_and_verifier(kit: OidcKit) -> None:
    await kit.make(ANNA)
    proof = await kit.visit(kit.subjects[ANNA])
    await kit.provider.recognise(proof)

    asked = [each.fields for each in kit.server.asked if each.path == "/oauth2/authorize"]
    assert {(each["nonce"], each["code_challenge"]) for each in asked} == {(proof.nonce, challenge_of(proof.verifier))}
    (token,) = [each.fields for each in kit.server.asked if each.path == "/oauth2/token"]
    assert token == {
        "grant_type": "authorization_code",
        "code": proof.code,
        "redirect_uri": REDIRECT_URI,
        "code_verifier": proof.verifier,
    }


async def test_the_secret_is_shown_in_the_header_encoded_as_in_a_form(kit: OidcKit) -> None:
    kit.provider._registration = OidcRegistration(kit.server.issuer, "tenure of acme", "s+cret/%:")
    await kit.provider.recognise(await kit.proof(ANNA))

    (header,) = [each.authorization for each in kit.server.asked if each.path == "/oauth2/token"]
    assert header is not None
    client_id, secret = b64decode(header.removeprefix("Basic ")).decode().split(":")
    assert (client_id, secret) == ("tenure+of+acme", "s%2Bcret%2F%25%3A")
    assert unquote_plus(secret) == "s+cret/%:"


async def test_the_secret_is_posted_where_the_provider_takes_it_no_other_way(kit: OidcKit) -> None:
    issuer = kit.server.issuer
    kit.server.instead["/.well-known/openid-configuration"] = lambda: (
        200,
        {
            **SAYS,
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/oauth2/authorize",
            "token_endpoint": f"{issuer}/oauth2/token",
            "jwks_uri": f"{issuer}/jwks",
            "token_endpoint_auth_methods_supported": ["private_key_jwt", "client_secret_post"],
        },
    )
    await kit.make(ANNA)

    assert await kit.provider.recognise(await kit.proof(ANNA)) is not None
    (token,) = [each for each in kit.server.asked if each.path == "/oauth2/token"]
    assert token.authorization is None
    assert (token.fields["client_id"], token.fields["client_secret"]) == ("tenure-acme", "s3cret")


async def test_a_code_is_good_once(kit: OidcKit) -> None:
    await kit.make(ANNA)
    proof = await kit.proof(ANNA)

    assert await kit.provider.recognise(proof) is not None
    assert await kit.provider.recognise(proof) is None


async def test_a_code_is_no_good_without_its_verifier_and_without_its_nonce(kit: OidcKit) -> None:
    await kit.make(ANNA)
    proof = await kit.visit(kit.subjects[ANNA])
    assert await kit.provider.recognise(replace(proof, verifier="another" * 10)) is None

    proof = await kit.visit(kit.subjects[ANNA])
    with capture_logs() as lines:
        assert await kit.provider.recognise(replace(proof, nonce="another")) is None
    assert reasons(lines) == ["wrong nonce"]


async def test_a_password_says_nothing_to_a_provider(kit: OidcKit) -> None:
    assert await kit.provider.recognise(Password(None, "password")) is None
    assert kit.server.asked == []


@pytest.mark.parametrize("verified", [False, "false", None, 0, "no"])
async def test_an_address_that_the_provider_has_not_verified_is_not_believed(kit: OidcKit, verified: Any) -> None:
    kit.server.know("1", email=ANNA, email_verified=verified)

    with capture_logs() as lines:
        assert await kit.provider.recognise(await kit.visit("1")) is None
    assert reasons(lines) == ["the e-mail address is not verified"]


@pytest.mark.parametrize("claims", [{}, {"email_verified": "true"}])
async def test_an_address_of_which_the_provider_says_nothing_else_or_yes_is_believed(
    kit: OidcKit, claims: Mapping[str, Any]
) -> None:
    kit.server.know("1", email="Anna@EXAMPLE.org", **claims)

    assert await kit.provider.recognise(await kit.visit("1")) == Recognised("1", "Anna@example.org")


async def test_userinfo_is_asked_for_an_address_that_the_token_does_not_tell(kit: OidcKit) -> None:
    kit.server.know("1")
    kit.server.instead["/userinfo"] = lambda: (200, {"sub": "1", "email": ANNA})

    assert await kit.provider.recognise(await kit.visit("1")) == Recognised("1", ANNA)
    (asked,) = [each for each in kit.server.asked if each.path == "/userinfo"]
    assert asked.authorization is not None
    assert asked.authorization.startswith("Bearer ")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"sub": "2", "email": ANNA}, "userinfo is about somebody else"),
        ({"email": ANNA}, "userinfo is about somebody else"),
        ({"sub": "1"}, "there is no e-mail address, or none that mail can be sent to"),
        ({"sub": "1", "email": "anna"}, "there is no e-mail address, or none that mail can be sent to"),
        ({"sub": "1", "email": ["a@example.org"]}, "there is no e-mail address, or none that mail can be sent to"),
        ({"sub": "1", "email": ANNA, "email_verified": False}, "the e-mail address is not verified"),
    ],
)
async def test_userinfo_is_believed_about_the_same_person_only(
    kit: OidcKit, said: Mapping[str, Any], reason: str
) -> None:
    kit.server.know("1")
    kit.server.instead["/userinfo"] = lambda: (200, said)

    with capture_logs() as lines:
        assert await kit.provider.recognise(await kit.visit("1")) is None
    assert reasons(lines) == [reason]


async def test_userinfo_does_not_verify_an_address_that_the_token_says_is_not(kit: OidcKit) -> None:
    kit.server.know("1", email_verified=False)
    kit.server.instead["/userinfo"] = lambda: (200, {"sub": "1", "email": ANNA})

    assert await kit.provider.recognise(await kit.visit("1")) is None


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/oauth2/token", (500, {"error": "invalid_grant"})),
        ("/oauth2/token", (503, "down")),
        ("/oauth2/token", (200, "nonsense")),
        ("/oauth2/token", (200, ["nonsense"])),
        ("/oauth2/token", (200, {"access_token": "a"})),
        ("/oauth2/token", (200, {"id_token": 1})),
        ("/oauth2/token", (404, "not found")),
        ("/oauth2/token", (429, {})),
        ("/oauth2/token", (302, "")),
        ("/jwks", (500, "")),
        ("/jwks", (200, "[" * 100_000)),
        ("/userinfo", (500, {"sub": "1", "email": ANNA})),
        ("/userinfo", (401, {"error": "invalid_token"})),
        ("/.well-known/openid-configuration", (200, {"issuer": "https://elsewhere.example.com"})),
    ],
)
async def test_a_provider_that_answers_nonsense_counts_as_away(
    kit: OidcKit, path: str, answer: tuple[int, Any]
) -> None:
    kit.server.know("1")
    proof = await kit.visit("1")
    kit.server.instead[path] = lambda: answer
    provider = kit.provider
    if path.startswith("/.well-known"):
        provider._discovery = Discovery(kit.client, clock=ManualClock())

    with pytest.raises(ProviderUnavailableError):
        await provider.recognise(proof)


@pytest.mark.parametrize(
    ("status", "error"), [(401, "invalid_client"), (400, "invalid_client"), (400, "unauthorized_client"), (401, None)]
)
async def test_a_provider_that_does_not_take_us_is_told_of_in_the_log_without_a_secret(
    kit: OidcKit, status: int, error: str | None
) -> None:
    kit.server.instead["/oauth2/token"] = lambda: (status, {"error": error})

    with (
        capture_logs() as lines,
        pytest.raises(ProviderUnavailableError, match="does not take the client id") as caught,
    ):
        await kit.provider.recognise(await kit.proof(ANNA))

    (line,) = [line for line in lines if line["action"] == "provider_refuses_us"]
    assert line == {
        "event": "a provider does not take us",
        "log_level": "warning",
        "action": "provider_refuses_us",
        "issuer": kit.server.issuer,
        "client_id": "tenure-acme",
    }
    assert "s3cret" not in f"{lines} {caught.value}"


async def test_a_refusal_of_the_code_is_nobody_and_no_failure(kit: OidcKit) -> None:
    kit.server.instead["/oauth2/token"] = lambda: (400, {"error": "invalid_grant", "error_description": "expired"})

    assert await kit.provider.recognise(await kit.proof(ANNA)) is None


async def test_a_provider_that_is_away_is_said_to_be(kit: OidcKit) -> None:
    await kit.make(ANNA)
    proof = await kit.proof(ANNA)

    with kit.away(), pytest.raises(ProviderUnavailableError, match="cannot be reached"):
        await kit.provider.recognise(proof)
    assert await kit.provider.recognise(proof) is not None


async def test_a_provider_that_is_slow_each_time_is_given_up_in_the_end(
    kit: OidcKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = await kit.proof(ANNA)
    monkeypatch.setattr(oidc, "SECONDS", 0.2)

    def slowly() -> tuple[int, Any]:
        time.sleep(0.5)
        return 400, {"error": "invalid_grant"}

    kit.server.instead["/oauth2/token"] = slowly
    with pytest.raises(ProviderUnavailableError, match="does not answer in time"):
        await kit.provider.recognise(proof)


async def test_a_provider_may_change_its_key() -> None:
    clock = ManualClock(datetime.now(UTC))
    async with open_oidc_kit(clock=clock) as kit:
        await kit.make(ANNA)
        assert await kit.provider.recognise(await kit.proof(ANNA)) is not None

        kit.server.change_key()
        await clock.advance(30)
        assert await kit.provider.recognise(await kit.proof(ANNA)) is not None
        assert await kit.provider.recognise(await kit.proof(ANNA)) is not None
        assert kit.server.times("/jwks") == 2


async def test_what_a_provider_says_of_itself_is_remembered_for_an_hour() -> None:
    clock, asked = ManualClock(), publisher()
    discovery = Discovery(asked, clock=clock)

    await discovery.metadata(ISSUER)
    await clock.advance(3599)
    first = await discovery.metadata(ISSUER)
    assert len(asked.asked) == 1

    await clock.advance(1)
    assert await discovery.metadata(ISSUER) == first
    assert len(asked.asked) == 2


async def test_whoever_sets_a_provider_learns_what_it_says_now() -> None:
    asked = publisher()
    discovery = Discovery(asked, clock=ManualClock())

    for _ in range(2):
        await discovery.check(ISSUER)
    assert len(asked.asked) == 2


@pytest.mark.parametrize("issuer", [ISSUER, f"{ISSUER}/", "https://id.example.com", "https://id.example.com/"])
async def test_an_issuer_is_found_with_and_without_a_path_and_is_its_own_to_the_letter(issuer: str) -> None:
    metadata = await Discovery(publisher(issuer, issuer=issuer), clock=ManualClock()).check(issuer)
    assert metadata.issuer == issuer

    other = issuer.removesuffix("/") if issuer.endswith("/") else f"{issuer}/"
    with pytest.raises(ProviderUnavailableError, match="of another issuer"):
        await Discovery(publisher(issuer, issuer=other), clock=ManualClock()).check(issuer)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"issuer": None}, "has no usable issuer"),
        ({"token_endpoint": None}, "has no usable token_endpoint"),
        ({"jwks_uri": 7}, "has no usable jwks_uri"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "no URL"),
        ({"authorization_endpoint": "ftp://id.example.com/"}, "must begin with https://"),
        ({"authorization_endpoint": "http://id.example.com/"}, "names an endpoint that does not begin with https://"),
        ({"token_endpoint": "/token"}, "no URL"),
        ({"token_endpoint": "https://us:secret@id.example.com/"}, "neither a user"),
        ({"userinfo_endpoint": "http://id.example.com/"}, "names an endpoint that does not begin with https://"),
        ({"id_token_signing_alg_values_supported": ["HS256", "none"]}, "signs with none of ES256, EdDSA, PS256, RS256"),
        ({"token_endpoint_auth_methods_supported": ["private_key_jwt"]}, "takes no client's secret"),
    ],
)
async def test_a_provider_that_we_cannot_do_with_is_told_why(changes: Mapping[str, Any], text: str) -> None:
    with pytest.raises(ProviderUnavailableError, match=text):
        await Discovery(publisher(**changes), clock=ManualClock()).check(ISSUER)


@pytest.mark.parametrize(
    ("issuer", "text"),
    [
        ("http://id.example.com", "must begin with https://"),
        ("id.example.com", "no URL"),
        ("https://127.0.0.1", "127.0.0.1 has no address where a provider may be"),
        ("https://id.example.com/?tenant=a", "no query"),
        ("https://id.example.com/#a", "fragment"),
    ],
)
async def test_an_issuer_that_may_not_be_asked_is_refused(issuer: str, text: str) -> None:
    client = ProviderClient()
    with pytest.raises(ProviderUnavailableError, match=text) as caught:
        await Discovery(client, clock=ManualClock()).check(issuer)
    assert isinstance(caught.value, AddressNotAllowedError) == ("no query" not in text)
    await client.aclose()


async def test_a_query_that_belongs_to_the_provider_is_kept(kit: OidcKit) -> None:
    discovery = Discovery(publisher(authorization_endpoint="https://id.example.com/?policy=a"), clock=ManualClock())
    kit.provider._discovery = discovery
    kit.provider._registration = OidcRegistration(ISSUER, "us", "secret")

    url = await kit.provider.authorization_url(state="s", nonce="n", challenge="c")
    assert url.startswith("https://id.example.com/?policy=a&response_type=code&")


def test_a_registration_does_not_show_its_secret() -> None:
    assert "hush" not in repr(OidcRegistration(ISSUER, "us", "hush"))
