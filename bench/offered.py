"""An offered load: requests at a fixed rate, whether or not anybody keeps up; raw sockets, so that it takes little."""

import asyncio
import json
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from bench.load import request

_TICK_SECONDS = 0.005
_CONNECTIONS = 512
_LATE_SECONDS = 60.0
_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length:"
_ACCEPTED = 202


@dataclass
class Outcome:
    """What became of an offered load.

    Attributes:
        offered: how many requests were due.
        accepted: the ids of the workflows.
        refused: how many others there were, by status.
        without_retry_after: how many of those do not say when to come back.
        accepted_seconds: from when a request was due to its answer, of each that was accepted.
        refused_seconds: the same of each that was refused.
    """

    offered: int = 0
    accepted: list[str] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    without_retry_after: int = 0
    accepted_seconds: list[float] = field(default_factory=list)
    refused_seconds: list[float] = field(default_factory=list)

    @property
    def unanswered(self) -> int:
        """How many requests have had no answer."""
        return self.offered - len(self.accepted) - self.refused.total()


class Offered:
    """Offers onboardings to a service on this machine, over as many connections as it takes, up to a bound.

    A request that is due while all connections are in use waits, and that counts as its waiting for the answer.

    Args:
        run: makes the customers' names of this load different from those of another.
    """

    def __init__(self, port: int, key: str, run: str) -> None:
        self.outcome = Outcome()
        self._port = port
        self._head = (
            f"POST /v1/onboardings HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self._run = run
        self._due: deque[_Due] = deque()
        self._free: list[_Connection] = []
        self._connections = 0
        self._connecting: set[asyncio.Task[None]] = set()

    async def offer(self, *, rate: float, seconds: float) -> Outcome:
        """Offer so many onboardings a second for some seconds, and wait until all are answered.

        Raises:
            TimeoutError: some have had no answer long after the last was due.
        """
        for due in _arrivals(rate, seconds, asyncio.get_running_loop().time()):
            if (wait := due - asyncio.get_running_loop().time()) > 0:
                await asyncio.sleep(max(wait, _TICK_SECONDS))
            self._begin(due)
        async with asyncio.timeout(_LATE_SECONDS):
            while self.outcome.unanswered:  # noqa: ASYNC110 - it changes in another process
                await asyncio.sleep(_TICK_SECONDS)
        self._hang_up()
        return self.outcome

    def _begin(self, due: float) -> None:
        self._due.append(_Due(self.outcome.offered, due))
        self.outcome.offered += 1
        if self._free:
            self._give(self._free.pop())
        elif self._connections < _CONNECTIONS:
            self._open()

    def _open(self) -> None:
        self._connections += 1
        task = asyncio.create_task(self._connect())
        self._connecting.add(task)
        task.add_done_callback(self._opened)

    def _opened(self, task: "asyncio.Task[None]") -> None:
        self._connecting.discard(task)
        task.result()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
        self._give(connection)

    def _give(self, connection: "_Connection") -> None:
        """Let a free connection send what has been due for longest."""
        if not self._due:
            self._free.append(connection)
            return
        due = self._due.popleft()
        body = json.dumps(request(self._run, due.number)).encode()
        connection.send(self._head + str(len(body)).encode() + _END_OF_HEAD + body, due)

    def answered(self, connection: "_Connection", head: bytes, body: bytes, seconds: float) -> None:
        """Take an answer into account and use its connection again."""
        status = int(head[9:12])
        if status == _ACCEPTED:
            self.outcome.accepted.append(json.loads(body)["id"])
            self.outcome.accepted_seconds.append(seconds)
        else:
            self.outcome.refused[status] += 1
            self.outcome.refused_seconds.append(seconds)
            self.outcome.without_retry_after += b"retry-after:" not in head
        self._give(connection)

    def lost(self, connection: "_Connection", unanswered: "_Due | None") -> None:
        """Do without a connection that the service has closed; what it was sent last is sent again."""
        self._connections -= 1
        if connection in self._free:
            self._free.remove(connection)
        if unanswered is not None:
            self._due.appendleft(unanswered)
            self._open()

    def _hang_up(self) -> None:
        for connection in tuple(self._free):
            connection.close()


class _Due(NamedTuple):
    """A request, and when it was due by the loop's clock."""

    number: int
    at: float


class _Connection(asyncio.Protocol):
    """One keep-alive connection, with one request at a time."""

    def __init__(self, owner: Offered) -> None:
        self._owner = owner
        self._sent: _Due | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass

    def connection_lost(self, _: Exception | None) -> None:
        self._owner.lost(self, self._sent)

    def send(self, content: bytes, due: _Due) -> None:
        """Send a request."""
        self._sent = due
        self._transport.write(content)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(_END_OF_HEAD)
        if not found:
            return
        head = head.lower()
        length = int(head.partition(_LENGTH)[2].partition(b"\r\n")[0])
        if len(body) >= length and self._sent is not None:
            seconds = asyncio.get_running_loop().time() - self._sent.at
            self._received, self._sent = b"", None
            self._owner.answered(self, head, body, seconds)

    def close(self) -> None:
        """Hang up."""
        self._transport.close()


def _arrivals(rate: float, seconds: float, start: float) -> Iterator[float]:
    for number in range(round(rate * seconds)):
        yield start + number / rate
