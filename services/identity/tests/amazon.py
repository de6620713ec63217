"""Amazon Cognito on this machine, as moto plays it, and ways to disturb it."""

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx2
from werkzeug.serving import WSGIRequestHandler, make_server

from services.identity.providers.cognito import Cognito, CognitoTerms, UserPool
from services.identity.providers.id_tokens import IdTokens
from shared.clock import SystemClock

REGION = "eu-central-1"
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

_Environment = dict[str, Any]
_StartResponse = Callable[[str, list[tuple[str, str]]], object]


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: Any) -> None:
        """Say nothing."""


class Amazon:
    """Listens on one port, also after it was away.

    Attributes:
        asked: the operations that were asked for, the first first.
        client: what an operator does.
    """

    def __init__(self) -> None:
        # Takes a second, of those tests alone that use it.
        from boto3 import Session  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # noqa: PLC0415

        self.asked: list[str] = []
        self._application = DomainDispatcherApplication(create_backend_app)
        self._refusals: dict[str, tuple[str, str]] = {}
        self._lost: dict[str, int] = {}
        self._flowing = threading.Event()
        self._flowing.set()
        self._port = 0
        self._listen()
        self.client: Any = Session("nobodys", "nobodys").client(
            "cognito-idp", region_name=REGION, endpoint_url=self.url, config=Config(retries={"total_max_attempts": 1})
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

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

    @contextmanager
    def refusing(self, operation: str, code: str, sentence: str = "") -> Iterator[None]:
        """Answer an operation with an error, or all of them: ``*``."""
        self._refusals[operation] = (code, sentence)
        try:
            yield
        finally:
            del self._refusals[operation]

    @contextmanager
    def losing_answers(self, operation: str, *, times: int) -> Iterator[None]:
        """Do what is asked for, and answer so many times that it could not be done."""
        self._lost[operation] = times
        try:
            yield
        finally:
            del self._lost[operation]

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Answer nothing before this is over."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Take no connections."""
        self._stop()
        try:
            yield
        finally:
            self._listen()

    def forget(self) -> None:
        """Be as new."""
        self.asked.clear()
        httpx2.post(f"{self.url}/moto-api/reset", verify=False, trust_env=False).raise_for_status()

    def close(self) -> None:
        """End."""
        self.client.close()
        self._stop()

    def _listen(self) -> None:
        self._server = make_server("127.0.0.1", self._port, self._answer, threaded=True, request_handler=_Quiet)
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environment: _Environment, start_response: _StartResponse) -> Iterable[bytes]:
        operation = environment.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        if operation:
            self.asked.append(operation)
        self._flowing.wait(30)
        if refusal := self._refusals.get(operation) or (self._refusals.get("*") if operation else None):
            return _error(start_response, *refusal)
        if self._lost.get(operation, 0) > 0:
            self._lost[operation] -= 1
            self._application(environment, lambda *_: None)
            return _error(start_response, "InternalErrorException", "", status="500 Internal Server Error")
        answer: Iterable[bytes] = self._application(environment, start_response)
        return answer


def _error(
    start_response: _StartResponse, code: str, sentence: str, *, status: str = "400 Bad Request"
) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "application/x-amz-json-1.1")])
    return [json.dumps({"__type": code, "message": sentence}).encode()]


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
