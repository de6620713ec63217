"""ID tokens: every way to forge one, and keys that come, go and cannot be had."""

import asyncio
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from joserfc import jws, jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from services.identity.providers.id_tokens import ALGORITHMS, IdTokens, InvalidIdTokenError, _Registry
from services.identity.providers.port import ProviderUnavailableError
from shared.clock import ManualClock

ISSUER, CLIENT, NONCE = "https://id.example.com", "tenure-acme", "n-0S6_WzA2Mj"
URL = "https://id.example.com/keys"

RSA = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"})
OTHER_RSA = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"})
EC = ECKey.generate_key("P-256", {"kid": "ec", "use": "sig"})
OKP = OKPKey.generate_key("Ed25519", {"kid": "okp", "use": "sig"})

SIGNING = _Registry(strict_check_header=False)


class Issuer:
    """Publishes keys and signs tokens, at a time that stands still."""

    def __init__(self, *keys: Any) -> None:
        self.clock = ManualClock()
        self.published: Any = {"keys": [public(key) for key in keys or (RSA, EC, OKP)]}
        self.fetched: list[str] = []
        self.is_away = False
        self.tokens = IdTokens(self.fetch, clock=self.clock)

    async def fetch(self, url: str) -> Mapping[str, Any]:
        self.fetched.append(url)
        await asyncio.sleep(0.01)
        if self.is_away:
            raise ProviderUnavailableError("away")
        document: Mapping[str, Any] = self.published
        return document

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(self.clock.now().timestamp())
        said = {"iss": ISSUER, "sub": "248289761001", "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": NONCE}
        return {name: value for name, value in (said | changes).items() if value != "left out"}

    def token(self, key: Key = EC, algorithm: str = "ES256", *, header: Any = None, **changes: Any) -> str:
        headers = {"alg": algorithm, "kid": key.kid} | (header or {})
        headers = {name: value for name, value in headers.items() if value is not None}
        return jwt.encode(headers, self.claims(**changes), key, registry=SIGNING, default_type=None)

    async def verify(self, token: str, **changes: Any) -> Mapping[str, Any]:
        asked = {"keys_url": URL, "issuer": ISSUER, "audience": CLIENT, "nonce": NONCE} | changes
        return await self.tokens.verify(token, **asked)

    async def refused(self, token: str, **changes: Any) -> str:
        with pytest.raises(InvalidIdTokenError) as caught:
            await self.verify(token, **changes)
        return str(caught.value)


def public(key: Any) -> Any:
    return key.as_dict(private=False) if isinstance(key, RSAKey | ECKey | OKPKey) else key


def part(content: Any) -> str:
    return base64url(json.dumps(content).encode())


def base64url(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA, "RS256"), (RSA, "PS256"), (EC, "ES256"), (OKP, "EdDSA")],
    ids=lambda each: str(each)[:5],
)
async def test_a_token_of_each_algorithm_is_believed(key: Key, algorithm: str) -> None:
    issuer = Issuer()
    said = await issuer.verify(issuer.token(key, algorithm, email="anna@example.org"))
    assert said == issuer.claims(email="anna@example.org")
    assert algorithm in ALGORITHMS


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "HS256", "HS512", "RS384", "RS512", "PS512", "ES384", "ES256K", "RSA1_5", "", "x"]
)
async def test_no_other_algorithm_is_looked_at(algorithm: str) -> None:
    issuer = Issuer()
    token = f"{part({'alg': algorithm, 'kid': 'rsa'})}.{part(issuer.claims())}."
    assert await issuer.refused(token) == "its algorithm is none that is taken"
    assert await issuer.refused(f"{token}AAAA") == "its algorithm is none that is taken"
    assert issuer.fetched == []


async def test_a_public_key_is_no_secret_to_sign_with() -> None:
    issuer = Issuer()
    for secret in (RSA.as_pem(private=False), json.dumps(public(RSA)).encode(), RSA.as_der(private=False)):
        signed = f"{part({'alg': 'HS256', 'kid': 'rsa'})}.{part(issuer.claims())}"
        signature = base64url(hmac.digest(secret, signed.encode(), "sha256"))
        assert await issuer.refused(f"{signed}.{signature}") == "its algorithm is none that is taken"


async def test_a_key_is_good_for_its_own_algorithm_only() -> None:
    issuer = Issuer(dict(public(RSA), alg="RS256"), EC)
    assert await issuer.verify(issuer.token(RSA, "RS256"))
    assert await issuer.refused(issuer.token(RSA, "PS256")) == "its key is not known"
    assert await issuer.refused(issuer.token(RSA, "RS256", header={"kid": "ec"})) == "its key is not known"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"iss": "https://id.example.com/"}, "wrong issuer"),
        ({"iss": "left out"}, "claim iss: Field required"),
        ({"iss": [ISSUER]}, "claim iss: Input should be a valid string"),
        ({"aud": "tenure-other"}, "wrong audience"),
        ({"aud": CLIENT.upper()}, "wrong audience"),
        ({"aud": []}, "wrong audience"),
        ({"aud": "left out"}, "claim aud: Field required"),
        ({"aud": {CLIENT: 1}}, "claim aud: Input should be a valid string"),
        ({"aud": [CLIENT, "tenure-other"]}, "wrong authorized party"),
        ({"azp": "tenure-other"}, "wrong authorized party"),
        ({"aud": [CLIENT, "tenure-other"], "azp": "tenure-other"}, "wrong authorized party"),
        ({"sub": "left out"}, "claim sub: Field required"),
        ({"sub": ""}, "claim sub: String should have at least 1 character"),
        ({"sub": "s" * 256}, "claim sub: String should have at most 255 characters"),
        ({"sub": 248289761001}, "claim sub: Input should be a valid string"),
        ({"sub": "a\x00b"}, "claim sub: String should match pattern"),
        ({"sub": "a\n"}, "claim sub: String should match pattern"),
        ({"exp": "left out"}, "claim exp: Field required"),
        ({"exp": "1800000000"}, "claim exp: Input should be a valid"),
        ({"exp": True}, "claim exp: Input should be a valid"),
        ({"exp": 1e300}, "claim exp: Input should be less than"),
        ({"exp": -1}, "claim exp: Input should be greater than or equal to 0"),
        ({"iat": "left out"}, "claim iat: Field required"),
        ({"iat": None}, "claim iat: Input should be a valid"),
        ({"nonce": "left out"}, "wrong nonce"),
        ({"nonce": ""}, "wrong nonce"),
        ({"nonce": NONCE.lower()}, "wrong nonce"),
        ({"nonce": NONCE + "é"}, "wrong nonce"),
        ({"nonce": [NONCE]}, "claim nonce: Input should be a valid string"),
    ],
    ids=str,
)
async def test_a_token_with_a_claim_that_is_another_is_refused(changes: Mapping[str, Any], problem: str) -> None:
    issuer = Issuer()
    assert (await issuer.refused(issuer.token(**changes))).startswith(problem)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [CLIENT]},
        {"aud": [CLIENT], "azp": CLIENT},
        {"aud": ["tenure-other", CLIENT], "azp": CLIENT},
        {"sub": "s" * 255},
        {"exp": 1_767_225_900.5, "iat": 1_767_225_600.5},
    ],
    ids=str,
)
async def test_what_the_standard_leaves_open_is_believed(changes: Mapping[str, Any]) -> None:
    issuer = Issuer()
    assert (await issuer.verify(issuer.token(**changes)))["sub"]


@pytest.mark.parametrize(("claim", "good", "bad"), [("exp", -59, -60), ("iat", 60, 61), ("nbf", 60, 61)])
async def test_clocks_may_be_a_minute_apart_and_no_more(claim: str, good: int, bad: int) -> None:
    issuer = Issuer()
    now = int(issuer.clock.now().timestamp())

    changes: list[dict[str, Any]] = [{claim: now + good}, {claim: now + bad}]
    assert await issuer.verify(issuer.token(**changes[0]))
    assert await issuer.refused(issuer.token(**changes[1])) in ("wrong expiry", "wrong beginning")


async def test_a_nonce_is_asked_for_only_where_one_was_sent() -> None:
    issuer = Issuer()
    assert await issuer.verify(issuer.token(nonce="left out"), nonce=None)
    assert await issuer.verify(issuer.token(nonce="another"), nonce=None)


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": True},
        {"b64": False},
        {"typ": "at+jwt"},
        {"typ": "logout+jwt"},
        {"typ": 1},
        {"kid": 1},
        {"kid": ["ec"]},
        {"alg": None},
        {"alg": ["ES256"]},
    ],
    ids=str,
)
async def test_a_header_that_asks_for_more_or_is_none_is_refused(header: Mapping[str, Any]) -> None:
    issuer = Issuer()
    whole: dict[str, Any] = {"alg": "ES256", "kid": "ec", **header}
    _, payload, signature = issuer.token().split(".")
    await issuer.refused(f"{part({name: value for name, value in whole.items() if value})}.{payload}.{signature}")
    await issuer.refused(f"{part(whole)}.{payload}.{signature}")
    assert issuer.fetched in ([], [URL])


async def test_a_critical_header_is_refused_even_where_it_is_signed() -> None:
    issuer = Issuer()
    for header in ({"crit": ["kid"]}, {"b64": True}, {"typ": "at+jwt"}):
        assert (
            "more than there is" in (problem := await issuer.refused(issuer.token(header=header))) or "type" in problem
        )
    assert await issuer.verify(issuer.token(header={"typ": "jwt", "ver": "1.0"}))


async def test_keys_inside_a_token_are_never_followed() -> None:
    issuer = Issuer(RSA)
    own = ECKey.generate_key("P-256", {"kid": "mine"})
    header = {"jwk": public(own), "jku": "https://evil.example.com/keys", "x5u": "https://evil.example.com/x5u"}

    for kid in ("mine", "rsa", None):
        assert await issuer.refused(issuer.token(own, header=header | {"kid": kid})) == "its key is not known"
    assert set(issuer.fetched) == {URL}
    assert await issuer.verify(issuer.token(RSA, "RS256", header=header))


async def test_a_token_that_was_changed_is_refused() -> None:
    issuer = Issuer()
    header, _, signature = issuer.token().split(".")
    assert await issuer.refused(f"{header}.{part(issuer.claims(sub='root'))}.{signature}") == "its signature is wrong"
    assert await issuer.refused(issuer.token(OTHER_RSA, "RS256")) == "its signature is wrong"
    assert await issuer.refused(f"{header}.{part(issuer.claims())}.") == "its signature is wrong"


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a.b.c", "a.b.c.d", "é.é.é", f"{part([])}.{part({})}.AA", f"{part({})}.{part({})}.AA", "x" * 32769],
    ids=lambda text: text[:8],
)
async def test_a_text_that_is_no_token_is_refused(text: str) -> None:
    issuer = Issuer()
    await issuer.refused(text)
    assert issuer.fetched == []


async def test_a_token_that_is_too_long_is_not_looked_at() -> None:
    issuer = Issuer()
    assert await issuer.verify(issuer.token(groups="g" * 20_000))
    assert await issuer.refused(issuer.token(groups="g" * 30_000)) == "it has more than 32768 characters"


@pytest.mark.parametrize("payload", [b"", b"[]", b'"a"', b"{", b'{"exp": NaN}', b'{"sub": "\\ud800"}', b"\xff"])
async def test_a_signed_text_that_is_no_json_object_is_refused(payload: bytes) -> None:
    issuer = Issuer()
    token = jws.serialize_compact({"alg": "ES256", "kid": "ec"}, payload, EC, ["ES256"])
    assert await issuer.refused(token) == "it says nothing that is JSON"


async def test_a_token_that_names_no_key_has_the_only_one_that_it_can_be() -> None:
    issuer = Issuer(RSA, EC)
    assert await issuer.verify(issuer.token(header={"kid": None}))

    issuer = Issuer(RSA, EC, ECKey.generate_key("P-256", {"kid": "ec2"}))
    assert await issuer.refused(issuer.token(header={"kid": None})) == "its key is not known"


@pytest.mark.parametrize(
    "broken",
    [
        None,
        "key",
        {},
        {"kty": "RSA"},
        {"kty": "RSA", "n": "!", "e": "AQAB"},
        {"kty": "RSA", "n": 5, "e": "AQAB"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "tiny"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-9", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "X25519", "x": "AA"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": ["EC"]},
        {"kty": "EC", "use": ["sig"]},
        {"kty": "EC", "key_ops": 5},
    ],
    ids=str,
)
async def test_a_key_that_cannot_be_read_does_not_take_the_others_along(broken: Any) -> None:
    issuer = Issuer(broken, EC)
    assert await issuer.verify(issuer.token())


@pytest.mark.parametrize("other", [{"use": "enc"}, {"use": ""}, {"use": None}, {"key_ops": ["sign"]}, {"alg": "ES512"}])
async def test_a_key_for_something_else_verifies_nothing(other: Mapping[str, Any]) -> None:
    issuer = Issuer({**public(EC), **other})
    assert await issuer.refused(issuer.token()) == "its key is not known"


@pytest.mark.parametrize("published", [{}, {"keys": None}, {"keys": {}}, {"keys": []}, {"keys": "rsa"}])
async def test_a_provider_that_publishes_no_keys_has_signed_nothing(published: Any) -> None:
    issuer = Issuer()
    issuer.published = published
    assert await issuer.refused(issuer.token()) == "its key is not known"


@pytest.mark.parametrize("bits", [1024, 8704])
async def test_a_key_that_is_too_short_or_too_long_is_not_used(bits: int) -> None:
    modulus = base64url(((1 << bits - 1) | 1).to_bytes(bits // 8))
    issuer = Issuer({"kty": "RSA", "kid": "rsa", "n": modulus, "e": "AQAB"})
    assert await issuer.refused(issuer.token(RSA, "RS256")) == "its key is not known"


async def test_keys_are_remembered_for_an_hour() -> None:
    issuer = Issuer()
    await issuer.verify(issuer.token())
    await issuer.clock.advance(3599)
    await issuer.verify(issuer.token())
    assert len(issuer.fetched) == 1

    await issuer.clock.advance(1)
    await issuer.verify(issuer.token())
    assert len(issuer.fetched) == 2


async def test_a_key_that_is_new_is_found_at_once_and_one_that_is_gone_is_good_no_more() -> None:
    issuer = Issuer(EC)
    await issuer.verify(issuer.token())
    await issuer.clock.advance(30)

    issuer.published = {"keys": [public(RSA)]}
    await issuer.verify(issuer.token(RSA, "RS256"))
    assert len(issuer.fetched) == 2
    assert await issuer.refused(issuer.token()) == "its key is not known"


async def test_a_new_key_by_an_old_name_is_found_too() -> None:
    issuer = Issuer(OTHER_RSA)
    await issuer.verify(issuer.token(OTHER_RSA, "RS256"))
    await issuer.clock.advance(30)

    issuer.published = {"keys": [public(RSA)]}
    await issuer.verify(issuer.token(RSA, "RS256"))


async def test_a_flood_of_unknown_keys_is_no_flood_at_the_provider() -> None:
    issuer = Issuer()
    await issuer.verify(issuer.token())
    await issuer.clock.advance(30)
    flood = [issuer.token(header={"kid": f"k{number}"}) for number in range(100)]

    for _ in range(3):
        refused = await asyncio.gather(*map(issuer.verify, flood), return_exceptions=True)
        assert {str(each) for each in refused} == {"its key is not known"}
    assert len(issuer.fetched) == 2

    await issuer.clock.advance(timedelta(seconds=29).total_seconds())
    await issuer.refused(flood[0])
    assert len(issuer.fetched) == 2
    await issuer.clock.advance(1)
    await issuer.refused(flood[0])
    assert len(issuer.fetched) == 3


async def test_keys_are_asked_for_once_however_many_wait() -> None:
    issuer = Issuer()
    await asyncio.gather(*(issuer.verify(issuer.token()) for _ in range(20)))
    assert len(issuer.fetched) == 1


async def test_who_gives_up_waiting_for_keys_takes_them_from_nobody() -> None:
    issuer = Issuer()
    impatient = asyncio.create_task(issuer.verify(issuer.token()))
    patient = asyncio.create_task(issuer.verify(issuer.token()))
    await asyncio.sleep(0)
    impatient.cancel()

    assert await patient
    assert len(issuer.fetched) == 1


async def test_keys_that_cannot_be_had_are_no_fault_of_the_token_and_asked_for_again() -> None:
    issuer = Issuer()
    issuer.is_away = True
    waiting = await asyncio.gather(*(issuer.verify(issuer.token()) for _ in range(5)), return_exceptions=True)
    assert [type(each) for each in waiting] == [ProviderUnavailableError] * 5
    assert len(issuer.fetched) == 1

    issuer.is_away = False
    assert await issuer.verify(issuer.token())


async def test_each_provider_has_keys_of_its_own() -> None:
    issuer = Issuer()
    await issuer.verify(issuer.token())
    issuer.published = {"keys": []}
    assert await issuer.refused(issuer.token(), keys_url="https://other.example.com/keys") == "its key is not known"
    assert await issuer.verify(issuer.token())
