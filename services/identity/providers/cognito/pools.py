"""Pools of users that tenants have for themselves."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.identity.passwords import SHORTEST
from services.identity.providers.cognito.calls import Calls, RefusedCallError, in_time
from services.identity.providers.cognito.terms import UserPool

CLIENT_NAME = "tenure"
PASSWORD_FLOW = "ALLOW_ADMIN_USER_PASSWORD_AUTH"  # noqa: S105 - the name of a way to sign in
READ_ATTRIBUTES = ("email", "email_verified", "custom:tenantId")

_SECONDS = 60.0
_AT_A_TIME = 60
_GONE = "ResourceNotFoundException"

_POOL: Final = {
    "Policies": {
        "PasswordPolicy": {
            "MinimumLength": SHORTEST,
            "RequireUppercase": False,
            "RequireLowercase": False,
            "RequireNumbers": False,
            "RequireSymbols": False,
        }
    },
    "Schema": [
        {
            "Name": "tenantId",
            "AttributeDataType": "String",
            "Mutable": False,
            "StringAttributeConstraints": {"MinLength": "1", "MaxLength": "64"},
        }
    ],
    # Nobody but us makes accounts or changes their passwords, though the client needs no secret.
    "AdminCreateUserConfig": {"AllowAdminCreateUserOnly": True},
    "AccountRecoverySetting": {"RecoveryMechanisms": [{"Name": "admin_only", "Priority": 1}]},
}
_CLIENT: Final = {
    "ClientName": CLIENT_NAME,
    "GenerateSecret": False,
    "ExplicitAuthFlows": [PASSWORD_FLOW, "ALLOW_REFRESH_TOKEN_AUTH"],
    "PreventUserExistenceErrors": "ENABLED",
    "ReadAttributes": list(READ_ATTRIBUTES),
    # The shortest that there are: no token is used but to see who somebody is.
    "AccessTokenValidity": 5,
    "IdTokenValidity": 5,
    "RefreshTokenValidity": 60,
    "TokenValidityUnits": {"AccessToken": "minutes", "IdToken": "minutes", "RefreshToken": "minutes"},
}


class CognitoPools:
    """Makes and deletes them.

    Args:
        installation: whose pools they are, among all in the region that may have the same names: the origin's URL.
    """

    def __init__(self, calls: Calls, *, installation: str) -> None:
        self._calls = calls
        self._installation = re.sub(r"[^\w.:/=+@-]", "_", installation, flags=re.ASCII)  # what a tag's value may hold

    async def open(self, tenant_id: str, *, is_begun: bool) -> UserPool:
        """Make a tenant's pool.

        Cognito makes as many as it is asked for. Whoever cannot know whether an attempt before got through says so,
        and the pool that it made is taken; if there are several, one of them, and the others are deleted.

        Raises:
            Problem: 503 when too much is being asked at this moment.
            ProviderUnavailableError: Cognito does not answer in time, or refuses; it may have been done.
        """
        async with in_time(_SECONDS):
            found = await self._named(tenant_id) if is_begun else []
            pool_id, *surplus = found or await self._make(tenant_id)
            for each in surplus:
                await self._delete(each)
            return UserPool(pool_id, await self._client_of(pool_id) if found else await self._make_client(pool_id))

    async def close(self, tenant_id: str, pool_id: str | None) -> None:
        """Delete a tenant's pool and everybody in it; one whose id is not known by its name. None is no error.

        Raises:
            Problem: 503 when too much is being asked at this moment.
            ProviderUnavailableError: Cognito does not answer in time, or refuses; it may have been done.
        """
        async with in_time(_SECONDS):
            for each in await self._named(tenant_id) if pool_id is None else [pool_id]:
                await self._delete(each)

    async def _make(self, tenant_id: str) -> Sequence[str]:
        """Make a pool and return its id, first of all that there are now: the client may have had to ask twice."""
        answer = await self._calls.call(
            "create_user_pool", PoolName=_name_of(tenant_id), UserPoolTags=self._tags_of(tenant_id), **_POOL
        )
        made: str = answer["UserPool"]["Id"]
        if not answer["ResponseMetadata"].get("RetryAttempts"):
            return [made]
        return [made, *(each for each in await self._named(tenant_id) if each != made)]

    async def _make_client(self, pool_id: str) -> str:
        answer = await self._calls.call("create_user_pool_client", UserPoolId=pool_id, **_CLIENT)
        client_id: str = answer["UserPoolClient"]["ClientId"]
        return client_id

    async def _client_of(self, pool_id: str) -> str:
        """Return what we are in a pool that an attempt before has made, perhaps without getting any further."""
        clients = await self._all("list_user_pool_clients", "UserPoolClients", UserPoolId=pool_id)
        ours = sorted(client["ClientId"] for client in clients if client["ClientName"] == CLIENT_NAME)
        return ours[0] if ours else await self._make_client(pool_id)

    async def _named(self, tenant_id: str) -> Sequence[str]:
        """Return the ids of a tenant's pools, in order."""
        pools = await self._all("list_user_pools", "UserPools")
        named = sorted(pool["Id"] for pool in pools if pool["Name"] == _name_of(tenant_id))
        return [pool_id for pool_id in named if await self._is_of(pool_id, tenant_id)]

    async def _is_of(self, pool_id: str, tenant_id: str) -> bool:
        """Return whether this installation has made a pool for a tenant; anybody can give one the same name."""
        try:
            answer = await self._calls.call("describe_user_pool", UserPoolId=pool_id)
        except RefusedCallError as refusal:
            if refusal.code != _GONE:
                raise
            return False
        tags: Mapping[str, str] = answer["UserPool"].get("UserPoolTags", {})
        return self._tags_of(tenant_id).items() <= tags.items()

    async def _delete(self, pool_id: str) -> None:
        try:
            await self._calls.call("delete_user_pool", UserPoolId=pool_id)
        except RefusedCallError as refusal:
            if refusal.code != _GONE:
                raise

    async def _all(self, operation: str, key: str, **parameters: Any) -> list[Mapping[str, Any]]:
        """Return all that an operation lists, page by page."""
        listed: list[Mapping[str, Any]] = []
        following: dict[str, Any] = {}
        while True:
            page = await self._calls.call(operation, MaxResults=_AT_A_TIME, **parameters, **following)
            listed += page[key]
            if not page.get("NextToken"):
                return listed
            following = {"NextToken": page["NextToken"]}

    def _tags_of(self, tenant_id: str) -> Mapping[str, str]:
        return {"tenure:installation": self._installation, "tenure:tenant": tenant_id}


def _name_of(tenant_id: str) -> str:
    return f"tenure-{tenant_id}"
