"""Where Amazon Cognito is, and what we are there."""

from dataclasses import dataclass

POOL_ID = "{pool_id}"
"""What stands for a pool's id in the address of its keys."""


@dataclass(frozen=True, slots=True)
class UserPool:
    """A pool of users.

    Attributes:
        pool_id: what Cognito calls it.
        client_id: what we are there.
    """

    pool_id: str
    client_id: str


@dataclass(frozen=True, slots=True)
class CognitoTerms:
    """Where Amazon Cognito is.

    Attributes:
        shared_pool: the operator's, with the people of all tenants that have no pool of their own; see `shared_pool`.
        endpoint_url: of what is asked instead of Amazon's own endpoint.
        keys_url: where a pool's public keys are, with ``{pool_id}`` in the place of its id; Amazon's where None.
    """

    region: str
    shared_pool: UserPool | None = None
    endpoint_url: str | None = None
    keys_url: str | None = None

    def issuer_of(self, pool_id: str) -> str:
        """Return how a pool calls itself in its tokens."""
        return f"https://cognito-idp.{self.region}.amazonaws.com/{pool_id}"

    def keys_url_of(self, pool_id: str) -> str:
        """Return where the keys are that a pool signs its tokens with."""
        if self.keys_url is None:
            return f"{self.issuer_of(pool_id)}/.well-known/jwks.json"
        return self.keys_url.replace(POOL_ID, pool_id)
