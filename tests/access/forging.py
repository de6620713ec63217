"""Access tokens as somebody makes them who wants in: by hand, so that nothing here is kinder than an attacker."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

Claims = Mapping[str, Any]

REQUIRED = ("iss", "sub", "aud", "exp", "iat", "nbf", "jti", "sid", "client_id", "role", "scope", "epoch")
"""The claims without which nothing is an access token."""

_YEAR = 365 * 24 * 3600
_BEYOND_SKEW = 65
_COORDINATE = 32
_TOO_LARGE = "x" * 9000
_STRANGE_KEY_IDS = {
    "a kid that is not known": "0" * 32,
    "a kid that is a path": "../../dev/null",
    "a kid that is SQL": '\' UNION SELECT \'{"kty":"oct","k":"AA"}\' --',
    "a kid that is a URL": "https://attacker.example/key.json",
    "a kid that is a list": ["a", "b"],
    "a kid that is empty": "",
}


@dataclass(frozen=True)
class Signer:
    """A private key of the curve P-256, and the id that it goes by."""

    key_id: str
    private: ec.EllipticCurvePrivateKey

    @classmethod
    def of(cls, jwk: Mapping[str, str]) -> "Signer":
        """Read a private JWK."""
        numbers = ec.EllipticCurvePublicNumbers(_number(jwk["x"]), _number(jwk["y"]), ec.SECP256R1())
        return cls(jwk["kid"], ec.EllipticCurvePrivateNumbers(_number(jwk["d"]), numbers).private_key())

    @classmethod
    def stranger(cls, key_id: str) -> "Signer":
        """Make a key that nobody knows, and claim that it is a known one."""
        return cls(key_id, ec.generate_private_key(ec.SECP256R1()))

    @property
    def header(self) -> dict[str, Any]:
        """The header of a good token."""
        return {"alg": "ES256", "typ": "at+jwt", "kid": self.key_id}

    @property
    def pem(self) -> bytes:
        """The public key as everybody can have it."""
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def jwk(self) -> dict[str, str]:
        """The public key, as a token may bring it along."""
        numbers = self.private.public_key().public_numbers()
        x, y = (_encoded(each.to_bytes(_COORDINATE, "big")) for each in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.key_id, "alg": "ES256", "use": "sig"}

    def token(self, claims: Claims, **header: Any) -> str:
        """Sign claims; ``header`` replaces and adds, None leaves out."""
        signed = _signed_part({**self.header, **header}, claims)
        r, s = decode_dss_signature(self.private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_encoded(r.to_bytes(_COORDINATE, 'big') + s.to_bytes(_COORDINATE, 'big'))}"


def claims_of(token: str) -> dict[str, Any]:
    """Read what a token says, without asking whether it is true."""
    claims: dict[str, Any] = json.loads(_decoded(token.split(".")[1]))
    return claims


def forged(good: str, operator: str, signer: Signer, *, other_tenant_id: str) -> Iterator[tuple[str, str]]:
    """Yield what must not be let in, each with what is wrong with it.

    Args:
        good: the token of a tenant's administrator.
        operator: a system administrator's.
        signer: whoever signs for the installation.
        other_tenant_id: of the tenant that the forger wants to get into.
    """
    claims = claims_of(good)
    into_other = {**claims, "tenant_id": other_tenant_id}
    yield from _wrong_signatures(good, into_other, signer)
    yield from _wrong_headers(claims, signer)
    yield from _wrong_claims(claims, signer)
    member_everywhere = {name: value for name, value in claims.items() if name != "tenant_id"}
    yield "an administrator of no tenant", signer.token(member_everywhere)
    yield "a system administrator in a tenant", signer.token({**claims_of(operator), "tenant_id": other_tenant_id})


def _wrong_signatures(good: str, claims: Claims, signer: Signer) -> Iterator[tuple[str, str]]:
    stranger = Signer.stranger(signer.key_id)
    header, _, signature = good.split(".")
    for algorithm in ("none", "NONE", "nOnE"):
        yield f"alg {algorithm}", f"{_signed_part({**signer.header, 'alg': algorithm}, claims)}."
    yield "alg none with a signature", f"{_signed_part({**signer.header, 'alg': 'none'}, claims)}.{signature}"
    for name, secret in {
        "its PEM": signer.pem,
        "its JWK": json.dumps(signer.jwk, separators=(",", ":")).encode(),
        "nothing": b"",
    }.items():
        signed = _signed_part({**signer.header, "alg": "HS256"}, claims)
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        yield f"HS256 with the public key as a secret: {name}", f"{signed}.{_encoded(mac)}"
    yield "another's claims under a good signature", f"{header}.{_part(claims)}.{signature}"
    yield "no signature", f"{header}.{_part(claims)}."
    yield "a signature of zeros", f"{header}.{_part(claims)}.{_encoded(bytes(2 * _COORDINATE))}"
    yield "a wrong key with the right kid", stranger.token(claims)
    for name, key_id in _STRANGE_KEY_IDS.items():
        yield name, stranger.token(claims, kid=key_id)
    yield "a key that it brings along", stranger.token(claims, jwk=stranger.jwk)
    yield "a key that it brings along, and no kid", stranger.token(claims, jwk=stranger.jwk, kid=None)
    yield "a jku", stranger.token(claims, jku="https://attacker.example/jwks.json")
    yield "an x5u", stranger.token(claims, x5u="https://attacker.example/chain.pem")
    yield "an x5c", stranger.token(claims, x5c=[base64.b64encode(stranger.pem).decode()])


def _wrong_headers(claims: Claims, signer: Signer) -> Iterator[tuple[str, str]]:
    yield "no kid", signer.token(claims, kid=None)
    yield "a crit that nobody knows", signer.token(claims, crit=["tenure-unknown"], **{"tenure-unknown": True})
    yield "a crit of nothing", signer.token(claims, crit=[])
    yield "typ JWT", signer.token(claims, typ="JWT")
    yield "no typ", signer.token(claims, typ=None)


def _wrong_claims(claims: Claims, signer: Signer) -> Iterator[tuple[str, str]]:
    for name in REQUIRED:
        yield f"no {name}", signer.token({other: value for other, value in claims.items() if other != name})
    now = claims["iat"]
    for what, wrong in {
        "expired": {"iat": now - 600, "nbf": now - 600, "exp": now - _BEYOND_SKEW},
        "not valid yet": {"nbf": now + 600, "exp": now + 1200},
        "made in the future": {"iat": now + 600, "nbf": now + 600, "exp": now + 1200},
        "good for a year": {"exp": now + _YEAR},
        "an expiry that is text": {"exp": str(claims["exp"])},
        "an expiry without end": {"exp": 10**400},
        "another audience": {"aud": "somebody-else"},
        "no audience": {"aud": []},
        "another issuer": {"iss": "https://attacker.example"},
        "an issuer in a list": {"iss": [claims["iss"]]},
        "an issuer with more behind it": {"iss": f"{claims['iss']}/"},
        "a role that is none": {"role": "Owner"},
        "a role in a list": {"role": ["TenantAdmin", "SystemAdmin"]},
        "a tenant in a list": {"tenant_id": [claims["tenant_id"]]},
        "the installation as its tenant": {"tenant_id": "_"},
        "an empty tenant": {"tenant_id": ""},
        "an earlier epoch": {"epoch": claims["epoch"] - 1},
        "a negative epoch": {"epoch": -1},
        "far too much in it": {"padding": _TOO_LARGE},
    }.items():
        yield what, signer.token({**claims, **wrong})


def _signed_part(header: Mapping[str, Any], claims: Claims) -> str:
    return f"{_part({name: value for name, value in header.items() if value is not None})}.{_part(claims)}"


def _part(content: Mapping[str, Any]) -> str:
    return _encoded(json.dumps(content, separators=(",", ":")).encode())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _number(text: str) -> int:
    return int.from_bytes(_decoded(text), "big")
