"""The pool that tenants share, which an operator has made and keeps.

It needs

- a custom attribute ``tenantId`` of the type String, which should not be mutable;
- neither sign-in aliases nor user names that are addresses: somebody who is in two tenants has two accounts with the
  same address;
- no multi-factor authentication that is required of everybody;
- sign-up for administrators only, and account recovery by administrators only (``admin_only``), so that accounts and
  passwords come from Tenure alone;

and an app client without a secret that

- allows the flow ``ALLOW_ADMIN_USER_PASSWORD_AUTH``, best with ``ALLOW_REFRESH_TOKEN_AUTH`` and no other;
- may read ``email``, ``email_verified`` and ``custom:tenantId``, listed as its ReadAttributes: without a list a client
  reads no custom attribute;
- prevents user existence errors (``PreventUserExistenceErrors``: ``ENABLED``).

Its password policy is the operator's; what it refuses, people are told in its words.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from services.identity.providers.cognito.calls import SECONDS, Calls, RefusedCallError, in_time
from services.identity.providers.cognito.pools import PASSWORD_FLOW, READ_ATTRIBUTES
from services.identity.providers.cognito.provider import TENANT
from services.identity.providers.cognito.terms import UserPool


class MisconfiguredError(ValueError):
    """A pool is not what it has to be; the text says what is missing."""


async def check(calls: Calls, shared: UserPool) -> None:
    """See whether the shared pool is as it must be.

    Raises:
        MisconfiguredError: it is not, or is not there.
        Problem: 503 when too much is being asked at this moment.
        ProviderUnavailableError: nobody knows.
    """
    ids = {"UserPoolId": shared.pool_id}
    try:
        async with in_time(SECONDS):
            pool = await calls.call("describe_user_pool", **ids)
            client = await calls.call("describe_user_pool_client", **ids, ClientId=shared.client_id)
    except RefusedCallError as refusal:
        if refusal.code != "ResourceNotFoundException":
            raise
        raise MisconfiguredError(
            f"The user pool {shared.pool_id} or its app client {shared.client_id} is not there."
        ) from None
    missing = [*_missing_of_pool(pool["UserPool"]), *_missing_of_client(client["UserPoolClient"])]
    if missing:
        raise MisconfiguredError(f"The user pool {shared.pool_id} must be changed: {'; '.join(missing)}.")


def _missing_of_pool(pool: Mapping[str, Any]) -> Iterator[str]:
    types = {attribute["Name"]: attribute["AttributeDataType"] for attribute in pool.get("SchemaAttributes", [])}
    if types.get(TENANT) != "String":
        yield f"it has no attribute {TENANT} of the type String"
    if pool.get("AliasAttributes") or pool.get("UsernameAttributes"):
        yield "people are to sign in there with nothing but their user names"
    if pool.get("MfaConfiguration") == "ON":
        yield "it requires multi-factor authentication"


def _missing_of_client(client: Mapping[str, Any]) -> Iterator[str]:
    if PASSWORD_FLOW not in client.get("ExplicitAuthFlows", []):
        yield f"its app client does not allow {PASSWORD_FLOW}"
    if client.get("ClientSecret"):
        yield "its app client has a secret"
    if unread := [name for name in READ_ATTRIBUTES if name not in client.get("ReadAttributes", [])]:
        yield f"its app client may not read {', '.join(unread)}"
