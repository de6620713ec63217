"""Usage over HTTP: batches that are sent until each of them was answered, whatever becomes of the service meanwhile."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from statistics import quantiles

from bench.load import Answer, Client
from bench.usage import Batch

PATH = "/v1/usage"

_MEDIA_TYPE = "application/cloudevents-batch+json"
_AGAIN_SECONDS = 0.1


@dataclass(frozen=True)
class Told:
    """What a batch was answered with.

    Attributes:
        body: of the answer.
        at: when, by `time.perf_counter`.
        seconds: since the batch was due.
    """

    batch: Batch
    body: bytes
    at: float
    seconds: float


@dataclass
class UsageLoad:
    """Sends batches to a service on this machine, over some connections at once.

    Attributes:
        told: the answers, by time.
        setbacks: how often a batch had to be sent again, by what happened to it.
        waiting: batches that were sent, once or again, and that nobody has taken yet as far as was told.
    """

    port: int
    key: str
    connections: int
    told: list[Told] = field(default_factory=list)
    setbacks: Counter[str] = field(default_factory=Counter)
    waiting: set[Batch] = field(default_factory=set)

    async def send(self, batches: Iterable[Batch], *, rate: float | None = None) -> float:
        """Send batches until each was answered; return how many seconds that took.

        Args:
            rate: batches a second that are due, whether or not anybody keeps up; None for one after the other.

        Raises:
            RuntimeError: one was answered with neither 200 nor 503.
        """
        started = time.perf_counter()
        due = _due(batches, started, rate)
        async with asyncio.TaskGroup() as group:
            for _ in range(self.connections):
                group.create_task(self._send_each(due))
        return time.perf_counter() - started

    async def _send_each(self, due: Iterator[tuple[float | None, Batch]]) -> None:
        connection = _Connection(self.port, self.key)
        try:
            for at, batch in due:
                if at is not None and (wait := at - time.perf_counter()) > 0:
                    await asyncio.sleep(wait)
                await self._send(connection, batch, at or time.perf_counter())
        finally:
            connection.close()

    async def _send(self, connection: "_Connection", batch: Batch, due: float) -> None:
        self.waiting.add(batch)
        while True:
            answer = await connection.post(batch)
            if answer is not None and answer.status == HTTPStatus.OK:
                now = time.perf_counter()
                self.told.append(Told(batch, answer.body, now, now - due))
                self.waiting.remove(batch)
                return
            if answer is not None and answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise RuntimeError(f"neither taken nor to be sent again: {answer.status} {answer.body.decode()}")
            self.setbacks["no answer" if answer is None else "503"] += 1
            await asyncio.sleep(_AGAIN_SECONDS)


class _Connection:
    """A connection that is made again when it is lost."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self._client: Client | None = None

    async def post(self, batch: Batch) -> Answer | None:
        """Post a batch; return nothing where that was not answered."""
        try:
            self._client = self._client or await Client.connect(self._port, self._key)
            return await self._client.send("POST", PATH, batch.body, _MEDIA_TYPE)
        except (OSError, EOFError):
            self.close()
            return None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None


def _due(batches: Iterable[Batch], started: float, rate: float | None) -> Iterator[tuple[float | None, Batch]]:
    for number, batch in enumerate(batches):
        yield started + number / rate if rate else None, batch


def percentile(seconds: Sequence[float], percent: int) -> float:
    """Return a percentile of some seconds, in milliseconds."""
    return 1000 * quantiles(seconds, n=100, method="inclusive")[percent - 1]
