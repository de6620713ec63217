"""ID tokens of external providers: what is checked before one is believed (OpenID Connect Core 1.0, 3.1.3.7).

The rules are those of our own tokens (RFC 8725): few algorithms, a known key, issuer and audience exact. Keys come from
where the provider's own metadata says, never from where a token says.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Self

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import CompactSignature, JWSRegistry, extract_compact, validate_compact
from joserfc.util import base64_to_int
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.identity.providers.remembered import LIFETIME, Remembered
from shared.clock import Clock

ALGORITHMS = frozenset({"RS256", "PS256", "ES256", "EdDSA"})
"""What tokens may be signed with: public keys only, and nothing that has been broken."""

SKEW = timedelta(seconds=60)
"""How far two machines' clocks may be apart."""

NO_SOONER = timedelta(seconds=30)
"""How long after keys were read they are read again because a token is signed with none of them."""

_LARGEST = 32 * 1024
_LARGEST_HEADER = 8 * 1024
_MOST_KEYS = 100
_RSA_BITS = range(2048, 8193)
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_UNREADABLE = (JoseError, UnsupportedAlgorithm, ValueError, TypeError, KeyError, AttributeError, OverflowError)

_Number = Annotated[int | float, Field(ge=0, lt=2**53)]  # what every reader of JSON has exactly


class InvalidIdTokenError(Exception):
    """A text is no ID token of this issuer for this client, or not any more. Tells nothing of what the token says."""


class IdTokens:
    """Verifies ID tokens with the keys that their issuers publish; one for all tenants.

    Args:
        fetch: returns the JSON object at a URL in bounded time, or raises `ProviderUnavailableError`.
    """

    def __init__(self, fetch: Callable[[str], Awaitable[Mapping[str, Any]]], *, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._remembered = Remembered(self._read, clock=clock)

    async def verify(
        self, token: str, *, keys_url: str, issuer: str, audience: str, nonce: str | None = None
    ) -> Mapping[str, Any]:
        """Return what a token says, all of it; ``sub`` is a text of at most 255 characters.

        Args:
            audience: what we are at the issuer: the client's id.
            nonce: that the token has to repeat; None where none was sent.

        Raises:
            InvalidIdTokenError: it is not to be trusted.
            ProviderUnavailableError: the keys cannot be had.
        """
        signature = _parsed(token)
        await self._check_signature(signature, keys_url)
        said = _decoded(signature)
        _Claims.read(said).check(issuer=issuer, audience=audience, nonce=nonce, now=self._clock.now())
        return said

    async def _check_signature(self, signature: CompactSignature, url: str) -> None:
        problem = ""
        for age in (LIFETIME, NO_SOONER):  # the provider may sign with another key since, not always with another name
            key = _pick(await self._remembered.get(url, younger_than=age), signature.headers())
            if key is not None and _is_signed(signature, key):
                return
            problem = "its key is not known" if key is None else "its signature is wrong"
        raise InvalidIdTokenError(problem)

    async def _read(self, url: str) -> Sequence["_PublishedKey"]:
        entries = (await self._fetch(url)).get("keys")
        found = [_PublishedKey.of(entry) for entry in entries[:_MOST_KEYS]] if isinstance(entries, list) else []
        return [key for key in found if key is not None]


@dataclass(frozen=True, slots=True)
class _PublishedKey:
    id: Any
    algorithms: frozenset[str]
    key: Key

    @classmethod
    def of(cls, entry: Any) -> Self | None:
        """Return a key that signatures can be verified with; None for any other, and for what cannot be read."""
        try:
            if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
                return None
            key, algorithms = _imported(entry)
        except _UNREADABLE:
            return None
        return cls(entry.get("kid"), algorithms & {entry.get("alg", each) for each in algorithms}, key)


def _imported(entry: Mapping[str, Any]) -> tuple[Key, frozenset[str]]:
    """Return the public key of a JWK (RFC 7517) and what it can be used for; of the rest nothing is looked at."""
    kind = entry["kty"]
    public = {"kty": kind, **{name: entry[name] for name in _MEMBERS[kind]}}
    if kind == "RSA" and base64_to_int(public["n"]).bit_length() in _RSA_BITS:
        return RSAKey.import_key(public), frozenset({"RS256", "PS256"})
    if kind == "EC" and public["crv"] == "P-256":
        return ECKey.import_key(public), frozenset({"ES256"})
    if kind == "OKP" and public["crv"] == "Ed25519":
        return OKPKey.import_key(public), frozenset({"EdDSA"})
    raise ValueError("a key of another kind")


def _pick(keys: Sequence[_PublishedKey], header: Mapping[str, Any]) -> Key | None:
    """Return the key that a token names; one that names none has the only key that it can be."""
    fitting = [key for key in keys if header["alg"] in key.algorithms and header.get("kid", key.id) == key.id]
    is_named = "kid" in header
    return fitting[0].key if fitting and (is_named or len(fitting) == 1) else None


class _Registry(JWSRegistry):
    """Only our algorithms, without a warning that EdDSA has a second name since RFC 9864."""

    max_header_length = _LARGEST_HEADER

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


_REGISTRY = _Registry(strict_check_header=False)


def _parsed(token: str) -> CompactSignature:
    if len(token) > _LARGEST:
        raise InvalidIdTokenError(f"it has more than {_LARGEST} characters")
    try:
        signature = extract_compact(token.encode("ascii"), registry=_REGISTRY)
        header = signature.headers()
        _REGISTRY.check_header(header)
    # Whatever a hostile text makes the parser stumble over, it is the text's fault.
    except (*_UNREADABLE, RecursionError) as error:
        raise InvalidIdTokenError(f"it cannot be read ({type(error).__name__})") from None
    if header.get("alg") not in ALGORITHMS:
        raise InvalidIdTokenError("its algorithm is none that is taken")
    if "crit" in header or "b64" in header:  # nothing that could stand there is understood (RFC 7515, 4.1.11)
        raise InvalidIdTokenError("it asks for more than there is")
    if header.get("typ", "JWT").upper() != "JWT":  # such as an access token (RFC 9068) that names us, too
        raise InvalidIdTokenError("its type is another")
    return signature


def _is_signed(signature: CompactSignature, key: Key) -> bool:
    try:
        return validate_compact(signature, key, registry=_REGISTRY)
    except _UNREADABLE:
        return False


def _decoded(signature: CompactSignature) -> Mapping[str, Any]:
    try:
        said = orjson.loads(signature.payload)
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict):
        raise InvalidIdTokenError("it says nothing that is JSON")
    return said


class _Claims(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    iss: str
    sub: Annotated[str, Field(min_length=1, max_length=255, pattern=r"\A[^\x00-\x1f\x7f]+\z")]
    aud: str | list[str]
    exp: _Number
    iat: _Number
    nbf: _Number = 0
    azp: str | None = None
    nonce: str | None = None

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        """Check the shape of all claims that matter.

        Raises:
            InvalidIdTokenError: one is missing, or is not what it has to be.
        """
        try:
            return cls.model_validate(said)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise InvalidIdTokenError(f"claim {first['loc'][0]}: {first['msg']}") from None

    def check(self, *, issuer: str, audience: str, nonce: str | None, now: datetime) -> None:
        """Compare the claims with what they have to be.

        Raises:
            InvalidIdTokenError: one is another.
        """
        audiences = [self.aud] if isinstance(self.aud, str) else self.aud
        moment, skew = now.timestamp(), SKEW.total_seconds()
        problems = {
            "issuer": self.iss != issuer,
            "audience": audience not in audiences,
            "authorized party": self.azp != audience if self.azp is not None or len(audiences) > 1 else False,
            "expiry": self.exp + skew <= moment,
            "beginning": max(self.nbf, self.iat) - skew > moment,
            "nonce": nonce is not None and not _is_same(self.nonce or "", nonce),
        }
        if wrong := [name for name, is_wrong in problems.items() if is_wrong]:
            raise InvalidIdTokenError(f"wrong {', '.join(wrong)}")


def _is_same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
