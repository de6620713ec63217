"""Access tokens: JWTs as RFC 9068 profiles them, signed with ES256 and nothing else.

Every service verifies them with the public keys that it was told about, so that they are good while identity is away.
What is checked follows RFC 8725: one algorithm, a known key, the type, all claims present, issuer and audience exact.
Keys, URLs and other headers inside a token are never followed.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from shared.access.principal import Principal, Role
from shared.contracts.base import TenantId

ALGORITHM = "ES256"
TYPE = "at+jwt"
AUDIENCE = "tenure"
"""Who the tokens are for: Tenure's own interface, and applications that ask it who somebody is."""

SKEW = timedelta(seconds=60)
"""How far two machines' clocks may be apart."""

LONGEST = timedelta(hours=1)
"""No token is good for longer, whatever it says of itself."""

_LARGEST = 8 * 1024

_Text = Annotated[str, Field(min_length=1, max_length=200)]
_Number = Annotated[StrictInt, Field(ge=0, lt=2**53)]  # what every reader of JSON has exactly, and arithmetic can bear
FindKey = Callable[[str], ECKey | None]
"""Returns the public key of an id, if there is one."""


class InvalidTokenError(Exception):
    """A text is no access token of this installation, or not any more."""


class UnknownKeyError(InvalidTokenError):
    """The token names a key that is not known here, or not yet."""


class AccessClaims(BaseModel):
    """What an access token says.

    Attributes:
        sub: the user, or the API key that it was given for.
        client_id: the application that asked for it; for an API key the key itself (RFC 9068, section 2.2).
        tenant_id: the one tenant that it is for; left out for operators.
        sid: the session, which can be revoked.
        scope: words with a space between; see `shared.access.principal.Principal`.
        epoch: how often all tokens of the tenant had been revoked when this one was made.
        reason: why an operator acts in the tenant.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    iss: _Text
    sub: _Text
    aud: _Text | Sequence[_Text]
    exp: _Number
    iat: _Number
    nbf: _Number
    jti: _Text
    sid: _Text
    client_id: _Text
    role: Annotated[Role, Field(strict=False)]
    scope: Annotated[str, Field(max_length=1000)]
    epoch: _Number
    tenant_id: TenantId | None = None
    reason: Annotated[str, Field(max_length=500)] | None = None

    @classmethod
    def read(cls, claims: dict[str, Any]) -> Self:
        """Check the shape of all claims.

        Raises:
            InvalidTokenError: one is missing, or is not what it has to be.
        """
        try:
            return cls.model_validate(claims)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise InvalidTokenError(f"claim {place}: {first['msg']}") from None

    @property
    def key_id(self) -> str | None:
        """The API key that it was given for, if it was one."""
        return self.sub if self.sub == self.client_id else None

    def principal(self) -> Principal:
        """Return whom the token speaks for.

        Raises:
            InvalidTokenError: nobody can be that.
        """
        is_key = self.key_id is not None
        try:
            return Principal(
                id=f"key:{self.sub}" if is_key else f"user:{self.sub}",
                role=self.role,
                tenant_id=self.tenant_id,
                scopes=frozenset(self.scope.split()),
                user_id=None if is_key else self.sub,
                session_id=self.sid,
                reason=self.reason,
            )
        except ValueError as error:
            raise InvalidTokenError(str(error)) from None


def sign(claims: AccessClaims, key: ECKey) -> str:
    """Make a token of claims with a private key that has an id."""
    header = {"alg": ALGORITHM, "typ": TYPE, "kid": key.kid}
    return jwt.encode(header, claims.model_dump(mode="json", exclude_none=True), key, algorithms=[ALGORITHM])


def verify(text: str, find_key: FindKey, *, issuer: str, now: datetime) -> AccessClaims:
    """Return what a token says, after all checks that need no memory; whether it was revoked is another question.

    Raises:
        InvalidTokenError: it is not to be trusted.
    """
    if len(text) > _LARGEST:
        raise InvalidTokenError(f"it has more than {_LARGEST} characters")
    try:
        token = jwt.decode(text, lambda entry: _key_of(entry.headers(), find_key), algorithms=[ALGORITHM])
    # Whatever a hostile text makes the parser stumble over, it is the text's fault.
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidTokenError(f"it does not verify ({type(error).__name__})") from None
    claims = AccessClaims.read(dict(token.claims))
    _check(claims, issuer=issuer, now=now)
    return claims


def _key_of(header: dict[str, Any], find_key: FindKey) -> ECKey:
    if header.get("typ") != TYPE:
        raise InvalidTokenError("its type is another")
    if "crit" in header:  # nothing that could stand there is understood, and nothing must not (RFC 7515, 4.1.11)
        raise InvalidTokenError("it asks for more than there is")
    key_id = header.get("kid")
    key = find_key(key_id) if isinstance(key_id, str) else None
    if key is None:
        raise UnknownKeyError("its key is not known")
    return key


def _check(claims: AccessClaims, *, issuer: str, now: datetime) -> None:
    audience = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    moment, skew = now.timestamp(), SKEW.total_seconds()
    problems = {
        "issuer": claims.iss != issuer,
        "audience": AUDIENCE not in audience,
        "expiry": claims.exp + skew <= moment,
        "beginning": max(claims.nbf, claims.iat) - skew > moment,
        "length": claims.exp - claims.iat > LONGEST.total_seconds(),
    }
    if wrong := [name for name, is_wrong in problems.items() if is_wrong]:
        raise InvalidTokenError(f"wrong {', '.join(wrong)}")


def epoch_seconds(moment: datetime) -> int:
    """Return a moment as JWTs have it: whole seconds since 1970."""
    return int(moment.astimezone(UTC).timestamp())
