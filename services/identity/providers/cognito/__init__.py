"""Amazon Cognito: people in a pool of users that is their tenant's own, or in one that tenants share.

The credentials come from boto3's usual places. They have to allow ``cognito-idp:AdminInitiateAuth``,
``AdminCreateUser``, ``AdminUpdateUserAttributes``, ``AdminSetUserPassword``, ``AdminDeleteUser``, ``DescribeUserPool``
and ``DescribeUserPoolClient``; and for pools of tenants' own ``CreateUserPool``, ``TagResource``,
``CreateUserPoolClient``, ``ListUserPools``, ``ListUserPoolClients`` and ``DeleteUserPool``.
"""

from services.identity.providers.cognito import shared_pool
from services.identity.providers.cognito.calls import Calls
from services.identity.providers.cognito.pools import CognitoPools
from services.identity.providers.cognito.provider import CognitoProvider
from services.identity.providers.cognito.shared_pool import MisconfiguredError
from services.identity.providers.cognito.terms import CognitoTerms, UserPool
from services.identity.providers.id_tokens import IdTokens


class Cognito:
    """All that is asked of Cognito, over one client.

    Args:
        tokens: verifies the ID tokens of all pools.
        installation: see `CognitoPools`.
    """

    def __init__(self, terms: CognitoTerms, tokens: IdTokens, *, installation: str) -> None:
        self._terms = terms
        self._tokens = tokens
        self._calls = Calls(terms)
        self._pools = CognitoPools(self._calls, installation=installation)

    @property
    def pools(self) -> CognitoPools:
        """Tenants' own pools."""
        return self._pools

    def directory(self, tenant_id: str, *, pool_id: str | None, client_id: str | None) -> CognitoProvider | None:
        """Return a tenant's people in its own pool, or in the shared one where no ids are given; None without one."""
        own = UserPool(pool_id, client_id) if pool_id is not None and client_id is not None else None
        pool = own or self._terms.shared_pool
        if pool is None:
            return None
        return CognitoProvider(self._calls, self._terms, self._tokens, tenant_id=tenant_id, pool=pool)

    async def check_shared(self) -> None:
        """See whether the shared pool, if there is one, is as it must be: `shared_pool.check`."""
        if self._terms.shared_pool is not None:
            await shared_pool.check(self._calls, self._terms.shared_pool)

    def close(self) -> None:
        """Ask nothing any more, and close all connections."""
        self._calls.close()


__all__ = ["Cognito", "CognitoPools", "CognitoProvider", "CognitoTerms", "MisconfiguredError", "UserPool"]
