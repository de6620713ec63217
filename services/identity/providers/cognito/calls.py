"""Calls of Amazon Cognito's interface, each with a bound on how long it takes."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from services.identity.providers.cognito.terms import CognitoTerms
from services.identity.providers.port import ProviderUnavailableError
from shared.threads import Threads

SECONDS = 10.0
"""How long one call may take, and what a person waits for together."""

_THREADS = 8
_MOST_WAITING = 64
_CONNECT_SECONDS, _READ_SECONDS = 3, 5
_TRIES = 2


class RefusedCallError(ProviderUnavailableError):
    """Amazon has answered, and not with what was asked for. Its text tells nothing of what was sent.

    Attributes:
        code: Amazon's name for the reason, such as ``UserNotFoundException``.
        sentence: the reason for people, in Amazon's words.
    """

    def __init__(self, operation: str, *, code: str, sentence: str) -> None:
        super().__init__(f"{operation}: {code}")
        self.code = code
        self.sentence = sentence


class _Client(Protocol):
    """What is used of boto3's client, which has no types; its operations are looked up by name."""

    def close(self) -> None:
        """Close all connections."""
        ...


@asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """Bound how long the calls in this block take together.

    Raises:
        ProviderUnavailableError: the time is over; what was asked for may have been done.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ProviderUnavailableError("Amazon Cognito does not answer in time") from None


class Calls:
    """Asks Cognito in one region, with the credentials from boto3's usual places."""

    def __init__(self, terms: CognitoTerms) -> None:
        self._terms = terms
        self._threads = Threads(
            _THREADS, most=_MOST_WAITING, name="cognito", detail="Too many are signing in at this moment."
        )
        self._lock = threading.Lock()
        self._made: _Client | None = None

    async def call(self, operation: str, /, **parameters: Any) -> Mapping[str, Any]:
        """Return what one operation of the client answers, such as ``admin_create_user``.

        Raises:
            Problem: 503 when too much is being asked already.
            RefusedCallError: it answers with an error.
            ProviderUnavailableError: it does not answer in time, or cannot be asked for want of credentials.
        """
        try:
            async with in_time(SECONDS):
                return await self._threads.run(lambda: self._operation(operation)(**parameters))
        except ClientError as error:
            raise _refusal(operation, error) from None
        except BotoCoreError as error:  # its text may tell what was sent
            raise ProviderUnavailableError(f"{operation}: {type(error).__name__}") from None

    def close(self) -> None:
        """Ask nothing any more, and close all connections."""
        self._threads.close()
        with self._lock:
            if self._made is not None:
                self._made.close()

    def _operation(self, name: str) -> Callable[..., Mapping[str, Any]]:
        operation: Callable[..., Mapping[str, Any]] = getattr(self._client(), name)
        return operation

    def _client(self) -> _Client:
        """Return the client, which is made when it is needed for the first time: it reads files and may look around."""
        with self._lock:
            if self._made is None:
                self._made = _make(self._terms)
            return self._made


def _make(terms: CognitoTerms) -> _Client:
    from boto3 import Session  # noqa: PLC0415 - takes half a second, of those alone who use it
    from botocore.config import Config  # noqa: PLC0415 - likewise

    logging.getLogger("botocore").setLevel(logging.INFO)  # below, it shows all that is sent
    client: _Client = Session().client(
        "cognito-idp",
        region_name=terms.region,
        endpoint_url=terms.endpoint_url,
        config=Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"total_max_attempts": _TRIES, "mode": "standard"},
            max_pool_connections=_THREADS,
        ),
    )
    return client


def _refusal(operation: str, error: ClientError) -> RefusedCallError:
    told = error.response.get("Error", {})
    return RefusedCallError(operation, code=told.get("Code", "unknown"), sentence=told.get("Message", ""))
