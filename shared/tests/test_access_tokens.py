"""Access tokens, and everything that looks like one and is not to be trusted."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey

from shared.access import Principal, Role
from shared.access.tokens import (
    AccessClaims,
    InvalidTokenError,
    UnknownKeyError,
    epoch_seconds,
    sign,
    verify,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = epoch_seconds(NOW)
ISSUER = "https://tenure.example.com"

KEY = ECKey.generate_key("P-256", {"kid": "k1"}, private=True)
OTHER_KEY = ECKey.generate_key("P-256", {"kid": "k1"}, private=True)
LONGER_KEY = ECKey.generate_key("P-384", {"kid": "k1"}, private=True)
PUBLIC = ECKey.import_key(KEY.as_dict(private=False))

HEADER: Mapping[str, Any] = {"alg": "ES256", "typ": "at+jwt", "kid": "k1"}
CLAIMS: Mapping[str, Any] = {
    "iss": ISSUER,
    "sub": "u1",
    "aud": "tenure",
    "exp": SECOND + 900,
    "iat": SECOND,
    "nbf": SECOND,
    "jti": "j1",
    "sid": "s1",
    "client_id": "console",
    "role": "TenantAdmin",
    "scope": "read usage:write",
    "epoch": 3,
    "tenant_id": "t1",
}

Signer = Callable[[bytes], bytes]


def checked(text: str, *, now: datetime = NOW) -> AccessClaims:
    """Verify as a service does that knows one key."""
    return verify(text, {"k1": PUBLIC}.get, issuer=ISSUER, now=now)


def es256(signed: bytes, key: ECKey = KEY, hash_: Any = None, size: int = 32) -> bytes:
    r, s = decode_dss_signature(der(signed, key, hash_))
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def der(signed: bytes, key: ECKey = KEY, hash_: Any = None) -> bytes:
    private = key.private_key
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return private.sign(signed, ec.ECDSA(hash_ or SHA256()))


def hs256(secret: bytes) -> Signer:
    return lambda signed: hmac.digest(secret, signed, hashlib.sha256)


def encoded(part: Any) -> str:
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(header: Any = HEADER, claims: Any = CLAIMS, signer: Signer = es256) -> str:
    """Make a token by hand; without arguments it is a good one."""
    signed = f"{encoded(header)}.{encoded(claims)}"
    return f"{signed}.{encoded(signer(signed.encode()))}"


def claiming(**claims: Any) -> str:
    return token(claims={**CLAIMS, **claims})


def headed(signer: Signer = es256, **header: Any) -> str:
    return token({**HEADER, **header}, signer=signer)


def without(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {each: value for each, value in mapping.items() if each != name}


def changed(text: str, place: int, part: str) -> str:
    parts = text.split(".")
    parts[place] = part
    return ".".join(parts)


def test_a_token_made_by_hand_is_good() -> None:
    """Else what follows would be refused for another reason than the one it is made for."""
    assert checked(token()).model_dump(exclude_none=True) == CLAIMS


def test_what_is_signed_is_read_back() -> None:
    claims = AccessClaims.read({**CLAIMS, "reason": "They asked for help: «é»."})
    assert checked(sign(claims, KEY)) == claims


def test_a_token_speaks_for_a_member() -> None:
    assert checked(token()).principal() == Principal(
        id="user:u1",
        role=Role.TENANT_ADMIN,
        tenant_id="t1",
        scopes=frozenset({"read", "usage:write"}),
        user_id="u1",
        session_id="s1",
    )


def test_a_token_speaks_for_support_in_a_tenant() -> None:
    principal = checked(claiming(role="CustomerSupport", reason="Ticket 1")).principal()
    assert (principal.acts_as, principal.tenant_id, principal.reason) == (Role.TENANT_ADMIN, "t1", "Ticket 1")


def test_a_token_speaks_for_an_operator() -> None:
    principal = checked(token(claims=without({**CLAIMS, "role": "SystemAdmin"}, "tenant_id"))).principal()
    assert (principal.acts_as, principal.tenant_id) == (Role.SYSTEM_ADMIN, None)


def test_a_token_that_was_given_for_an_api_key_speaks_for_the_key() -> None:
    principal = checked(claiming(sub="abc", client_id="abc")).principal()
    assert (principal.id, principal.user_id) == ("key:abc", None)


def test_it_may_be_for_others_too_and_say_more() -> None:
    assert checked(claiming(aud=["shop", "tenure"], nickname="Ada", cnf={"jkt": "x"})).sub == "u1"


@pytest.mark.parametrize(
    ("claims", "seconds"),
    [
        ({}, -60),  # of another machine whose clock is ahead
        ({}, 900 + 59),
        ({"exp": SECOND + 3600}, 0),
    ],
)
def test_clocks_may_be_a_minute_apart(claims: dict[str, Any], seconds: int) -> None:
    assert checked(claiming(**claims), now=NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("claims", "seconds", "complaint"),
    [
        ({}, -61, "beginning"),
        ({}, 900 + 60, "expiry"),
        ({"nbf": SECOND + 61}, 0, "beginning"),
        ({"iat": SECOND + 61, "exp": SECOND + 100}, 0, "beginning"),
        ({"exp": SECOND + 3601}, 0, "length"),
        ({"exp": SECOND - 60, "iat": SECOND - 100}, 0, "expiry"),
        ({"exp": 0}, 0, "expiry"),
        ({"iat": 0}, 0, "length"),
        ({"iss": "https://elsewhere.example.com"}, 0, "issuer"),
        ({"iss": ISSUER + "/"}, 0, "issuer"),
        ({"aud": "shop"}, 0, "audience"),
        ({"aud": ["shop", "tenure2"]}, 0, "audience"),
        ({"aud": []}, 0, "audience"),
    ],
)
def test_a_token_for_another_time_or_place_is_refused(claims: dict[str, Any], seconds: int, complaint: str) -> None:
    with pytest.raises(InvalidTokenError, match=f"^wrong {complaint}$"):
        checked(claiming(**claims), now=NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize("name", sorted(set(CLAIMS) - {"tenant_id"}))
@pytest.mark.parametrize(
    "value", ["left out", None, [], {}, True, -1, 1.5, "x" * 1001], ids=lambda value: repr(value)[:9]
)
def test_every_claim_must_be_there_and_be_what_it_has_to_be(name: str, value: Any) -> None:
    claims = without(CLAIMS, name) if value == "left out" else {**CLAIMS, name: value}
    with pytest.raises(InvalidTokenError, match=f"claim {name}|wrong "):
        checked(token(claims=claims))


@pytest.mark.parametrize(
    "claims",
    [
        {"tenant_id": ""},
        {"tenant_id": "t1 t2"},
        {"tenant_id": "t1\n"},
        {"tenant_id": "t/1"},
        {"tenant_id": "t" * 65},
        {"tenant_id": 1},
        {"tenant_id": ["t1"]},
        {"role": "systemadmin"},
        {"role": "SystemAdmin "},
        {"role": "Nobody"},
        {"exp": str(SECOND + 900)},
        {"exp": float(SECOND + 900)},
        {"exp": 10**30},
        {"exp": 10**400},
        {"iat": -(10**400)},
        {"epoch": "3"},
        {"epoch": 3.0},
        {"epoch": 10**400},
        {"aud": [1, "tenure"]},
        {"aud": {"tenure": 1}},
        {"scope": ["read"]},
        {"reason": "x" * 501},
        {"sub": "u" * 201},
    ],
    ids=lambda claims: repr(claims)[:40],
)
def test_a_claim_is_never_bent_into_shape(claims: dict[str, Any]) -> None:
    with pytest.raises(InvalidTokenError):
        checked(claiming(**claims))


@pytest.mark.parametrize(
    "claims",
    [
        without(CLAIMS, "tenant_id"),
        {**CLAIMS, "tenant_id": None},
        {**CLAIMS, "role": "SystemAdmin"},
        {**without(CLAIMS, "tenant_id"), "role": "TenantUser"},
    ],
)
def test_a_token_for_somebody_who_cannot_be_speaks_for_nobody(claims: dict[str, Any]) -> None:
    with pytest.raises(InvalidTokenError, match="belongs to"):
        checked(token(claims=claims)).principal()


PEM = PUBLIC.as_pem(private=False)
JWK = json.dumps(PUBLIC.as_dict(private=False)).encode()
STRANGER = OTHER_KEY.as_dict(private=False)
GOOD = token()

HOSTILE: dict[str, str] = {
    "no algorithm": headed(lambda _: b"", alg="none"),
    "no algorithm, but a good signature": headed(alg="none"),
    "no algorithm, written otherwise": headed(lambda _: b"", alg="NoNe"),
    "no algorithm named": token(without(HEADER, "alg")),
    "another algorithm's name": headed(alg="es256"),
    "an algorithm that is a list": headed(alg=["ES256"]),
    "the public key as a secret, PEM": headed(hs256(PEM), alg="HS256"),
    "the public key as a secret, JWK": headed(hs256(JWK), alg="HS256"),
    "an empty secret": headed(hs256(b""), alg="HS256"),
    "RSA": headed(alg="RS256"),
    "EdDSA": headed(alg="EdDSA"),
    "another curve": headed(lambda signed: es256(signed, LONGER_KEY, SHA384(), 48), alg="ES384"),
    "another curve under our algorithm": headed(lambda signed: es256(signed, LONGER_KEY, size=48)),
    "somebody else's key of the same name": headed(lambda signed: es256(signed, OTHER_KEY)),
    "a key that it brings along": headed(lambda signed: es256(signed, OTHER_KEY), jwk=STRANGER),
    "a key that it brings along, and no name": token(
        {**without(HEADER, "kid"), "jwk": STRANGER}, signer=lambda signed: es256(signed, OTHER_KEY)
    ),
    "a key that is to be fetched": headed(lambda signed: es256(signed, OTHER_KEY), jku="http://127.0.0.1:9/jwks.json"),
    "a certificate that is to be fetched": headed(lambda signed: es256(signed, OTHER_KEY), x5u="http://127.0.0.1:9/"),
    "a certificate": headed(lambda signed: es256(signed, OTHER_KEY), x5c=["MIIB"]),
    "no signature": changed(GOOD, 2, ""),
    "a signature of nothing but zeros": headed(lambda _: bytes(64)),
    "half a signature": headed(lambda signed: es256(signed)[:32]),
    "a signature and more": headed(lambda signed: es256(signed) + b"x"),
    "a signature in DER": headed(der),
    "a signature that is no Base64": changed(GOOD, 2, "!" * 86),
    "the signature of another token": changed(GOOD, 2, claiming(jti="j2").split(".")[2]),
    "the claims of another token": changed(GOOD, 1, encoded({**CLAIMS, "role": "SystemAdmin"})),
    "the header of another token": changed(GOOD, 0, encoded({**HEADER, "more": 1})),
    "an identity token": headed(typ="JWT"),
    "no type": token(without(HEADER, "typ")),
    "a type that is none": headed(typ=None),
    "a type that is a list": headed(typ=["at+jwt"]),
    "what must be understood and is not": headed(crit=["exp"], exp=1),
    "what must be understood and is not there": headed(crit=["unknown"]),
    "nothing that must be understood": headed(crit=[]),
    "claims that are not encoded": headed(b64=False, crit=["b64"]),
    "no key's name": token(without(HEADER, "kid")),
    "a key's name that is a number": headed(kid=1),
    "a key's name that is a list": headed(kid=["k1"]),
    "a key's name that is a path": headed(kid="../../../../dev/null"),
    "a key's name that is SQL": headed(kid="k1' OR '1'='1"),
    "a header that is no JSON": token(b"{"),
    "a header that is a list": token([]),
    "a header that is nothing": token(b""),
    "a header that is not UTF-8": token(b"\xff\xfe"),
    "a header that never ends": token(b'{"a":' * 1200),
    "claims that are no JSON": token(claims=b"{"),
    "claims that are a list": token(claims=[1]),
    "claims that are a text": token(claims="admin"),
    "claims that are nothing": token(claims=b""),
    "claims that are not UTF-8": token(claims=b'{"sub":"\xff"}'),
    "claims that never end": token(claims=b"[" * 5000),
    "claims that are an endless number": token(claims=b'{"exp":' + b"9" * 5000 + b"}"),
    "claims that are not a number": token(claims=b'{"exp":NaN}'),
    "claims that are half a character": token(claims=b'{"sub":"\\ud800"}'),
    "too much": claiming(more="x" * 8192),
    "nothing": "",
    "dots": "..",
    "one part": GOOD.split(".")[0],
    "two parts": GOOD.rpartition(".")[0],
    "four parts": GOOD + ".x",
    "five parts, as if encrypted": GOOD + ".x.y",
    "JSON": json.dumps({"payload": GOOD.split(".")[1], "signatures": []}),
    "letters of no Base64": "é.é.é",
    "half characters": "\ud800.\ud800.\ud800",
    "zeros": "\0.\0.\0",
    "a line more": "\n" + GOOD,
    "a word more": "Bearer " + GOOD,
    "spaces": GOOD.replace(".", " . "),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_is_refused_and_nothing_worse(text: str) -> None:
    with pytest.raises(InvalidTokenError):
        checked(text)


@pytest.mark.parametrize("name", ["k2", "", "K1", "k1 "])
def test_a_key_that_is_not_known_is_told_from_the_rest(name: str) -> None:
    """Because it may have been told of meanwhile."""
    with pytest.raises(UnknownKeyError):
        checked(headed(kid=name))


def test_the_name_of_a_key_is_not_looked_for_in_what_is_no_access_token() -> None:
    """Or anybody could make services look, with whatever is signed by whomever."""
    with pytest.raises(InvalidTokenError) as refused:
        checked(headed(typ="JWT", kid="k2"))
    assert not isinstance(refused.value, UnknownKeyError)


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    with pytest.raises(InvalidTokenError):
        checked(text)


@given(st.binary(), st.binary(), st.binary())
def test_no_parts_are_too_odd(header: bytes, claims: bytes, signature: bytes) -> None:
    with pytest.raises(InvalidTokenError):
        checked(".".join(map(encoded, (header, claims, signature))))


@given(st.dictionaries(st.sampled_from(sorted(CLAIMS)), st.none() | st.integers() | st.text(max_size=5), min_size=1))
def test_no_claims_are_too_odd(odd: dict[str, Any]) -> None:
    """Whoever has the key might still make a mistake."""
    with suppress(InvalidTokenError):
        checked(claiming(**odd)).principal()


def test_a_refusal_shows_nothing_of_the_token() -> None:
    for text in HOSTILE.values():
        with pytest.raises(InvalidTokenError) as refused:
            checked(text)
        assert all(part not in str(refused.value) for part in text.split(".") if len(part) > 8)
