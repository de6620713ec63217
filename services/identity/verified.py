"""Access tokens that were verified a moment ago: a signature takes longer to check than all the rest of a request."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.identity.bounded import Bounded
from shared.access.principal import Principal
from shared.access.tokens import AccessClaims
from shared.clock import Clock

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says; whether it was revoked is another question.

    Attributes:
        key_id: the API key that it was given for, if it was one.
        expires_at: in seconds since 1970.
    """

    principal: Principal
    session_id: str
    epoch: int
    key_id: str | None
    expires_at: int


class VerifiedTokens:
    """Verifies tokens, and remembers those that are good by the SHA-256 of their text until they expire.

    Args:
        verify: returns what a token says, its signature verified.
        most: how many it remembers.
    """

    def __init__(self, verify: Callable[[str], Awaitable[AccessClaims]], *, clock: Clock, most: int = _MOST) -> None:
        self._verify = verify
        self._clock = clock
        self._tokens: Bounded[bytes, Token] = Bounded(most)

    async def read(self, text: str) -> Token:
        """Return what a token says.

        Raises:
            InvalidTokenError: it is not to be trusted.
        """
        digest = hashlib.sha256(text.encode()).digest()
        token = self._tokens.get(digest)
        if token is not None and self._clock.now().timestamp() < token.expires_at:
            return token
        self._tokens.drop(digest)
        claims = await self._verify(text)
        token = Token(claims.principal(), claims.sid, claims.epoch, claims.key_id, claims.exp)
        if self._clock.now().timestamp() < token.expires_at:
            self._tokens.put(digest, token)
        return token
