"""Environments made by somebody who is asked over HTTP and answers at once, or calls back.

What is asked is signed, and so is what is called back. Each question has a key, which is the same however often it is
sent: it is the message's id, and where the answer is sent to. The key is noted before the question is sent for the
first time, so that also a process that takes over sends the same. See [docs/drivers.md](../../../../docs/drivers.md).
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2
import orjson
import structlog

from services.provisioning.drivers.documents import (
    LARGEST,
    Document,
    MalformedAnswerError,
    Operation,
    inspection_of,
    outcome_of,
    parsed,
    question,
)
from services.provisioning.drivers.port import (
    Capacity,
    Environment,
    Inspection,
    Next,
    Outcome,
    Refused,
    Retry,
    Task,
)
from services.provisioning.drivers.webhook.api import PATH
from services.provisioning.drivers.webhook.callbacks import Callbacks, Waiting
from services.provisioning.drivers.webhook.signatures import Keys
from shared.clock import Clock
from shared.ids import Ids

log = structlog.get_logger(__name__)

ISOLATIONS = ("pool", "bridge", "silo")

ASK, AWAIT = "ask", "await-callback"
"""The two stages; what whoever is asked calls the stage is in the notes."""

_OK, _ACCEPTED, _BAD = 200, 202, 400
_TRY_AGAIN = frozenset({408, 425, 429})
_SERVERS_FAULT = 500
_LONGEST_RETRY_AFTER = timedelta(hours=1)
_CONNECT_SECONDS = 5.0
_SHORTEST_LOOK, _LONGEST_LOOK = timedelta(seconds=1), timedelta(seconds=30)
_KEPT = timedelta(days=1)
_MARGIN = timedelta(seconds=15)
_MOST_QUESTIONS = 5
_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "tenure",
}


class UnusableUrlError(ValueError):
    """Nobody can be asked at a URL; the text says why."""


class WebhookFailedError(Exception):
    """Whoever is asked could not look at an environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTerms:
    """Who is asked, and how long that may take.

    Attributes:
        url: who is asked.
        keys: what questions are signed with.
        origin: where callbacks find us, such as ``https://tenure.example.com``.
        timeout: how long an answer may take.
        patience: how long a callback may take.
        may_be_plain: whether the URL may begin with ``http://`` although it is not on this machine.
        isolations: what whoever is asked can make.
        at_once: how many questions there may be at a time.
    """

    url: str
    keys: Keys
    origin: str
    timeout: timedelta = timedelta(seconds=30)
    patience: timedelta = timedelta(hours=1)
    may_be_plain: bool = False
    isolations: Sequence[str] = ISOLATIONS
    at_once: int = 8


class _Question(NamedTuple):
    """What is asked, as whoever is asked sees it.

    Attributes:
        task: with the stage and the notes of whoever is asked.
        nonce: what makes the key one of a kind.
        tried: how many questions there have been for this step, with this one.
    """

    operation: Operation
    task: Task
    nonce: str
    tried: int = 1

    @property
    def key(self) -> str:
        """The id of the question, and where its answer goes."""
        parts = (str(self.task.environment.environment_id), self.operation.value, self.task.stage, self.nonce)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    retry_after: str | None


class _NoAnswerError(Exception):
    """There is no answer, or none that can be borne; the text says so for people."""


class WebhookDriver:
    """The `Driver` that asks over HTTP.

    Args:
        client: what it asks with; see `open_webhook`.
        callbacks: where answers arrive.

    Raises:
        UnusableUrlError: see `WebhookTerms`.
    """

    name = "webhook"

    def __init__(
        self, terms: WebhookTerms, *, client: httpx2.AsyncClient, callbacks: Callbacks, clock: Clock, ids: Ids
    ) -> None:
        check_url(terms.url, may_be_plain=terms.may_be_plain)
        self._terms = terms
        self._client = client
        self._callbacks = callbacks
        self._clock = clock
        self._ids = ids

    @property
    def isolations(self) -> Sequence[str]:
        """What the operator says that can be made."""
        return tuple(self._terms.isolations)

    def capacity(self, isolation: str) -> Capacity:  # noqa: ARG002 - the same for each
        """One question a call; it ends by itself before it would be cancelled."""
        return Capacity(batch=1, at_once=self._terms.at_once, step=self._terms.timeout + _MARGIN)

    async def provision(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """See `Driver.provision`."""
        return [await self._step(Operation.PROVISION, task) for task in tasks]

    async def deprovision(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """See `Driver.deprovision`."""
        return [await self._step(Operation.DEPROVISION, task) for task in tasks]

    async def move(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """See `Driver.move`."""
        return [await self._step(Operation.MOVE, task) for task in tasks]

    async def throttle(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """See `Driver.throttle`."""
        return [await self._step(Operation.THROTTLE, task) for task in tasks]

    async def deploy(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """See `Driver.deploy`."""
        return [await self._step(Operation.DEPLOY, task) for task in tasks]

    async def inspect(self, environments: Sequence[Environment]) -> Sequence[Inspection]:
        """See `Driver.inspect`; this is answered at once.

        Raises:
            WebhookFailedError: it is not, or with what is no inspection.
        """
        return [await self._look(environment) for environment in environments]

    async def _look(self, environment: Environment) -> Inspection:
        asked = _Question(Operation.INSPECT, Task(environment=environment), self._nonce())
        try:
            answer = await self._send(asked.key, question(asked.operation, asked.task))
            if answer.status != _OK:
                raise WebhookFailedError(f"The webhook answers with status {answer.status}.")
            return inspection_of(parsed(answer.body))
        except (_NoAnswerError, MalformedAnswerError) as error:
            raise WebhookFailedError(str(error)) from None

    async def _step(self, operation: Operation, task: Task) -> Outcome:
        if task.stage not in (ASK, AWAIT):
            # What is given up or taken back begins again, with what was noted so far.
            begun = Next(stage="", resources=task.environment.resources, notes=task.notes.get("notes", {}))
            return self._noted(begun)
        own = replace(task, stage=task.notes["stage"], notes=task.notes["notes"])
        asked = _Question(operation, own, task.notes["nonce"], task.notes["tried"])
        waiting = await self._callbacks.find(asked.key)
        if waiting is not None and waiting.document is not None:
            return await self._answered(asked, waiting.document)
        if task.stage == ASK:
            return await self._ask(asked)
        return await self._wait(asked, waiting)

    async def _ask(self, asked: _Question) -> Outcome:
        now, environment_id = self._clock.now(), asked.task.environment.environment_id
        # Before it is sent, since the callback may be here before the answer.
        await self._callbacks.expect(asked.key, environment_id, now=now, until=now + self._terms.patience + _KEPT)
        callback_url = f"{self._terms.origin}{PATH}/{asked.key}"
        try:
            answer = await self._send(asked.key, question(asked.operation, asked.task) | {"callbackUrl": callback_url})
            return self._outcome(asked, answer)
        except (_NoAnswerError, MalformedAnswerError) as error:
            return Retry(detail=str(error))

    async def _wait(self, asked: _Question, waiting: Waiting | None) -> Outcome:
        if waiting is None:  # the last time was in vain
            if asked.tried >= _MOST_QUESTIONS:
                return Refused(code="webhook_unanswered", detail=f"It was asked {asked.tried} times in vain.")
            again = Next(stage=asked.task.stage, resources=asked.task.environment.resources, notes=asked.task.notes)
            return self._noted(again, tried=asked.tried)
        waited = self._clock.now() - waiting.since
        if waited < self._terms.patience:
            return self._awaited(asked, after=min(max(waited / 4, _SHORTEST_LOOK), _LONGEST_LOOK))
        await self._callbacks.forget(asked.key)
        return Retry(detail=f"The webhook has not called back within {self._terms.patience.total_seconds():g} s.")

    async def _answered(self, asked: _Question, document: Document) -> Outcome:
        """Take what was called back; of what is no answer nothing is kept, so that it is asked once more."""
        try:
            outcome = outcome_of(document, asked.operation, asked.task)
        except MalformedAnswerError as error:
            outcome = Retry(detail=str(error))
        if isinstance(outcome, Retry):
            await self._callbacks.forget(asked.key)
        return self._onward(asked, outcome)

    def _outcome(self, asked: _Question, answer: _Answer) -> Outcome:
        """Return what an answer comes to.

        Raises:
            MalformedAnswerError: it says nothing that could be understood.
        """
        if answer.status == _OK:
            return self._onward(asked, outcome_of(parsed(answer.body), asked.operation, asked.task))
        if answer.status == _ACCEPTED:
            return self._awaited(asked, after=_SHORTEST_LOOK)
        if answer.status in _TRY_AGAIN or not _BAD <= answer.status < _SERVERS_FAULT:
            detail = f"The webhook answers with status {answer.status}."
            return Retry(detail=detail, after=_retry_after(answer.retry_after, self._clock.now()))
        return _refusal(asked, answer)

    def _onward(self, asked: _Question, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Next):
            return outcome
        return self._noted(replace(outcome, notes={**asked.task.notes, **outcome.notes}))

    def _noted(self, step: Next, *, tried: int = 0) -> Next:
        """Note the next question before it is asked for the first time.

        Args:
            step: in the words of whoever is asked.
        """
        notes = {"nonce": self._nonce(), "tried": tried + 1, "stage": step.stage, "notes": dict(step.notes)}
        return replace(step, stage=ASK, notes=notes)

    def _awaited(self, asked: _Question, *, after: timedelta) -> Next:
        own = asked.task
        notes = {"nonce": asked.nonce, "tried": asked.tried, "stage": own.stage, "notes": dict(own.notes)}
        return Next(stage=AWAIT, resources=own.environment.resources, notes=notes, after=after)

    def _nonce(self) -> str:
        return str(self._ids.new())

    async def _send(self, identity: str, document: Document) -> _Answer:
        """Ask.

        Raises:
            _NoAnswerError: there is no answer, or none that can be borne.
        """
        body = orjson.dumps(document)
        headers = self._terms.keys.headers(identity, body, now=self._clock.now()) | _HEADERS
        try:
            async with (
                asyncio.timeout(self._terms.timeout.total_seconds()),
                self._client.stream("POST", self._terms.url, content=body, headers=headers) as response,
            ):
                answer = _Answer(response.status_code, await _body(response), response.headers.get("Retry-After"))
        except TimeoutError:
            raise _NoAnswerError("The webhook does not answer in time.") from None
        except httpx2.HTTPError as error:
            log.warning("a webhook cannot be asked", action="webhook_unavailable", error=repr(error))
            raise _NoAnswerError("The webhook cannot be reached.") from None
        log.info("a webhook was asked", action="webhook_asked", webhook_id=identity, status=answer.status)
        return answer


@asynccontextmanager
async def open_webhook(
    terms: WebhookTerms, *, callbacks: Callbacks, clock: Clock, ids: Ids
) -> AsyncIterator[WebhookDriver]:
    """Make the driver, with connections of its own that are closed at the end.

    Raises:
        UnusableUrlError: see `WebhookTerms`.
    """
    timeout = httpx2.Timeout(terms.timeout.total_seconds(), connect=_CONNECT_SECONDS)
    async with httpx2.AsyncClient(timeout=timeout, follow_redirects=False, trust_env=False) as client:
        yield WebhookDriver(terms, client=client, callbacks=callbacks, clock=clock, ids=ids)


def check_url(url: str, *, may_be_plain: bool = False) -> None:
    """Find out whether somebody can be asked at a URL.

    Raises:
        UnusableUrlError: nobody can.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
        is_whole = bool(host) and parts.port != 0
    except ValueError:
        host, is_whole = None, False
    if host is None or not is_whole or any(not "!" <= character <= "~" for character in url):
        raise UnusableUrlError("The webhook's address is no URL.")
    if "@" in parts.netloc or "#" in url:
        raise UnusableUrlError("The webhook's address has neither a user nor a fragment.")
    if parts.scheme != "https" and not (parts.scheme == "http" and (may_be_plain or _is_here(host))):
        raise UnusableUrlError("The webhook's address must begin with https://, unless it is on this machine.")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _body(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > LARGEST:
            raise _NoAnswerError(f"The webhook answers with more than {LARGEST} bytes.")
    return bytes(body)


def _refusal(asked: _Question, answer: _Answer) -> Outcome:
    """Return what the webhook itself says of its refusal, where it does."""
    try:
        outcome = outcome_of(parsed(answer.body), asked.operation, asked.task)
    except MalformedAnswerError:
        outcome = None
    if isinstance(outcome, Refused):
        return outcome
    return Refused(code="webhook_refused", detail=f"The webhook refuses with status {answer.status}.")


def _retry_after(text: str | None, now: datetime) -> timedelta:
    """Return how long a server wants to be left alone (RFC 9110, 10.2.3), within bounds; nothing if it does not say."""
    if text is None:
        return timedelta(0)
    if text.isascii() and text.isdecimal():
        seconds = float(text[:9])
    else:
        try:
            seconds = (parsedate_to_datetime(text).astimezone(UTC) - now).total_seconds()
        except ValueError:
            return timedelta(0)
    return min(max(timedelta(seconds=seconds), timedelta(0)), _LONGEST_RETRY_AFTER)
