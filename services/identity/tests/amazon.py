"""Amazon Cognito on this machine, as moto plays it, and ways to disturb it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from services.identity.providers.cognito import Cognito, CognitoTerms, UserPool
from services.identity.providers.id_tokens import IdTokens
from shared.clock import SystemClock
from shared.testing.amazon import REGION, AmazonServer

INSTALLATION = "https://tenure.example.org"
FLOWS = ["ALLOW_ADMIN_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"]
TENANT_ID = {
    "Name": "tenantId",
    "AttributeDataType": "String",
    "Mutable": False,
    "StringAttributeConstraints": {"MinLength": "1", "MaxLength": "64"},
}
SHARED_POOL: Mapping[str, Any] = {
    "PoolName": "shared",
    "Schema": [TENANT_ID],
    "Policies": {
        "PasswordPolicy": {
            "MinimumLength": 12,
            "RequireUppercase": False,
            "RequireLowercase": False,
            "RequireNumbers": False,
            "RequireSymbols": False,
        }
    },
}
SHARED_CLIENT: Mapping[str, Any] = {
    "ClientName": "tenure",
    "ExplicitAuthFlows": FLOWS,
    "ReadAttributes": ["email", "email_verified", "custom:tenantId"],
    "PreventUserExistenceErrors": "ENABLED",
}


class Amazon(AmazonServer):
    """The server, and what an operator does of Cognito there.

    Attributes:
        client: what an operator does it with.
    """

    def __init__(self) -> None:
        super().__init__()
        self.client: Any = self.open("cognito-idp")

    def terms(self, shared_pool: UserPool | None = None) -> CognitoTerms:
        """Return what the service is told."""
        return CognitoTerms(
            REGION, shared_pool, endpoint_url=self.url, keys_url=f"{self.url}/{{pool_id}}/.well-known/jwks.json"
        )

    def shared_pool(
        self, *, pool: Mapping[str, Any] = SHARED_POOL, client: Mapping[str, Any] = SHARED_CLIENT
    ) -> UserPool:
        """Make a pool and an app client as an operator does."""
        pool_id = self.client.create_user_pool(**pool)["UserPool"]["Id"]
        made = self.client.create_user_pool_client(UserPoolId=pool_id, **client)
        return UserPool(pool_id, made["UserPoolClient"]["ClientId"])

    def pool_names(self) -> list[str]:
        """Return the names of all pools there are."""
        pages = self.client.get_paginator("list_user_pools").paginate(MaxResults=60)
        return [pool["Name"] for page in pages for pool in page["UserPools"]]


@asynccontextmanager
async def open_cognito(terms: CognitoTerms) -> AsyncIterator[Cognito]:
    """Return our side of it."""
    async with httpx2.AsyncClient(verify=False, trust_env=False) as http:  # it speaks no TLS

        async def fetch(url: str) -> Mapping[str, Any]:
            keys: Mapping[str, Any] = (await http.get(url)).json()
            return keys

        cognito = Cognito(terms, IdTokens(fetch, clock=SystemClock()), installation=INSTALLATION)
        try:
            yield cognito
        finally:
            cognito.close()
