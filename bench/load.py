"""A load of onboardings over HTTP: plain sockets, so that the client takes as little of the machine as it can."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

_FULL_SECONDS = 0.2
"""How long a client waits that was told to come back: less than it was told, so that there is always somebody."""


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: bytes


class Client:
    """One keep-alive HTTP/1.1 connection that sends one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self._reader = reader
        self._writer = writer
        self._key = key

    @classmethod
    async def connect(cls, port: int, key: str) -> "Client":
        """Connect to a service on this machine, as the administrator."""
        return cls(*await asyncio.open_connection("127.0.0.1", port), key)

    async def request(self, method: str, path: str, body: object = None) -> Answer:
        """Send one request and read its answer."""
        return await self.send(method, path, b"" if body is None else json.dumps(body).encode(), "application/json")

    async def send(self, method: str, path: str, content: bytes, media_type: str) -> Answer:
        """Send one request whose body is there already, and read its answer."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: {media_type}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        self._writer.write(head.encode() + content)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length:")[2].split(b"\r\n")[0])
        return Answer(int(answer.split(b" ", 2)[1]), await self._reader.readexactly(length))

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


async def onboard_many(port: int, key: str, *, count: int, connections: int, run: str) -> list[str]:
    """POST onboardings over some connections at once; return the ids of the workflows.

    Args:
        run: makes the customers' names of this run different from those of another.

    Raises:
        RuntimeError: one was not accepted.
    """
    numbers = iter(range(count))
    clients = [await Client.connect(port, key) for _ in range(connections)]
    try:
        accepted = await asyncio.gather(*(_onboard_each(client, numbers, run) for client in clients))
    finally:
        for client in clients:
            client.close()
    return [each for some in accepted for each in some]


async def _onboard_each(client: Client, numbers: Iterator[int], run: str) -> list[str]:
    return [await _onboard(client, request(run, number)) for number in numbers]


async def _onboard(client: Client, body: object) -> str:
    while True:
        answer = await client.request("POST", "/v1/onboardings", body)
        if answer.status == HTTPStatus.ACCEPTED:
            return str(json.loads(answer.body)["id"])
        if answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
            raise RuntimeError(f"not accepted: {answer.status} {answer.body.decode()}")
        await asyncio.sleep(_FULL_SECONDS)


def request(run: str, number: int) -> dict[str, object]:
    """Return an onboarding as people send it."""
    return {
        "customerName": f"Customer {run} {number}",
        "adminEmails": [f"owner-{run}-{number}@example.com"],
        "tier": "free",
        "products": [{"name": "notes", "version": "2.0"}],
    }
