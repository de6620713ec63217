"""Calls of Amazon's interfaces, each with a bound on how long it takes, and none of them repeated here."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from services.provisioning.drivers.aws.terms import AwsTerms
from services.provisioning.drivers.port import DriverUnavailableError
from shared.http import Problem
from shared.threads import Threads

SECONDS = 20.0
"""How long one call may take."""

_THREADS = 32
_MOST_WAITING = 256
_CONNECT_SECONDS, _READ_SECONDS = 3, 15
_SERVERS_FAULT = 500

_THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TooManyUpdates",
    }
)


class NoAnswerError(DriverUnavailableError):
    """Amazon does not answer, or cannot be asked; what was asked for may have been done. The text is for people."""


class RefusedCallError(DriverUnavailableError):
    """Amazon has answered, and not with what was asked for. Its text tells nothing of what was sent.

    Attributes:
        code: Amazon's name for the reason, such as ``NoSuchEntity``.
        reason: what Amazon adds to some of these names.
        is_passing: whether the same may succeed a moment later.
    """

    def __init__(self, operation: str, *, code: str, reason: str = "", is_passing: bool = False) -> None:
        super().__init__(f"Amazon refuses {operation}: {reason or code}.")
        self.code = code
        self.reason = reason
        self.is_passing = is_passing

    @property
    def is_throttled(self) -> bool:
        """Whether too much was asked for."""
        return self.code in _THROTTLED


@dataclass(frozen=True, slots=True)
class Credentials:
    """What somebody is known by for a while."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_at: datetime


class _Client(Protocol):
    """What is used of boto3's clients, which have no types; their operations are looked up by name."""

    def close(self) -> None:
        """Close all connections."""
        ...


class Calls:
    """Asks Amazon, each client for one service, one region and somebody's credentials."""

    def __init__(self, terms: AwsTerms) -> None:
        self._terms = terms
        self._threads = Threads(_THREADS, most=_MOST_WAITING, name="aws")
        self._lock = threading.Lock()
        self._session: Any = None

    async def run(self, operation: str, work: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return what Amazon answers.

        Raises:
            RefusedCallError: it answers with an error.
            NoAnswerError: it does not answer in time, or cannot be asked.
        """
        try:
            async with asyncio.timeout(SECONDS):
                return await self._threads.run(work)
        except TimeoutError:
            raise NoAnswerError(f"Amazon does not answer {operation} in time.") from None
        except ClientError as error:
            raise _refusal(operation, error) from None
        except (BotoCoreError, ResponseParserError) as error:  # its text may tell what was sent
            raise NoAnswerError(f"Amazon cannot be asked for {operation}: {type(error).__name__}.") from None
        except Problem:
            raise NoAnswerError(f"Too much is being asked for {operation} to be next.") from None

    def make(self, service: str, region: str, credentials: Credentials | None) -> _Client:
        """Make a client, with credentials from boto3's usual places where none are given. Threads call this."""
        from botocore.config import Config  # noqa: PLC0415 - takes half a second, of those alone who use it

        given = {} if credentials is None else {
            "aws_access_key_id": credentials.access_key_id,
            "aws_secret_access_key": credentials.secret_access_key,
            "aws_session_token": credentials.session_token,
        }  # fmt: skip
        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"total_max_attempts": 1},  # the job repeats its steps, and says so
            s3={"addressing_style": "path"} if self._terms.endpoint_url else {},
        )
        with self._lock:  # a session is not for several threads at a time
            if self._session is None:
                self._session = _new_session()
            client: _Client = self._session.client(
                service, region_name=region, endpoint_url=self._terms.endpoint_url, config=config, **given
            )
            return client

    def close(self) -> None:
        """Ask nothing any more."""
        self._threads.close()


class Caller:
    """Somebody who asks, in one region; its clients are made when they are needed."""

    def __init__(self, calls: Calls, region: str, credentials: Credentials | None = None) -> None:
        self._calls = calls
        self._region = region
        self._credentials = credentials
        self._lock = threading.Lock()
        self._clients: dict[str, _Client] = {}

    @property
    def credentials(self) -> Credentials | None:
        """Whose rights it has; None for our own."""
        return self._credentials

    async def call(self, service: str, operation: str, /, **parameters: Any) -> Mapping[str, Any]:
        """Return what one operation answers, such as ``iam`` and ``create_role``; see `Calls.run`."""

        def work() -> Mapping[str, Any]:
            answer: Mapping[str, Any] = getattr(self._client(service), operation)(**parameters)
            return answer

        return await self._calls.run(f"{service}:{operation}", work)

    async def unless(self, code: str, service: str, operation: str, /, **parameters: Any) -> Mapping[str, Any] | None:
        """Return what one operation answers, or None where it answers with this error."""
        try:
            return await self.call(service, operation, **parameters)
        except RefusedCallError as refusal:
            if refusal.code.removesuffix("Exception") != code.removesuffix("Exception"):
                raise
            return None

    async def pages(self, service: str, operation: str, /, key: str, **parameters: Any) -> AsyncIterator[Any]:
        """Yield all that an operation lists, page by page; for those that go on with a ``NextToken``."""
        following: dict[str, Any] = {}
        while True:
            page = await self.call(service, operation, **parameters, **following)
            for each in page[key]:
                yield each
            if not page.get("NextToken"):
                return
            following = {"NextToken": page["NextToken"]}

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _client(self, service: str) -> _Client:
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._calls.make(service, self._region, self._credentials)
            return self._clients[service]


@asynccontextmanager
async def caller(calls: Calls, region: str, credentials: Credentials) -> AsyncIterator[Caller]:
    """Return somebody who asks for a while."""
    made = Caller(calls, region, credentials)
    try:
        yield made
    finally:
        made.close()


def _new_session() -> Any:
    from boto3 import Session  # noqa: PLC0415 - takes half a second, of those alone who use it

    logging.getLogger("botocore").setLevel(logging.INFO)  # below, it shows all that is sent
    return Session()


def _refusal(operation: str, error: ClientError) -> RefusedCallError:
    told = error.response.get("Error", {})
    code: str = told.get("Code", "unknown")
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    is_passing = code in _THROTTLED or code.startswith("ConcurrentModification") or status >= _SERVERS_FAULT
    return RefusedCallError(operation, code=code, reason=error.response.get("Reason", ""), is_passing=is_passing)
