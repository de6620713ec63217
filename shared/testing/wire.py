"""A TCP connection between a client and a real server, which a test can cut, stop and mend."""

import asyncio
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit, urlunsplit

_CHUNK_BYTES = 64 * 1024


class Wire:
    """Forwards bytes between whoever connects here and a server, until it is disturbed.

    Args:
        url: where the server is; anything with a host and a port.
    """

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._requests_flow = asyncio.Event()
        self._answers_flow = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._requests_flow.set()
        self._answers_flow.set()
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut everything and stop listening."""
        self.break_off()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def through(self, url: str) -> str:
        """Return a URL of the server, with any login, that leads through this wire."""
        parts = urlsplit(url)
        login = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{self._port}"))

    def cut(self) -> None:
        """Break the connections that there are; new ones can be made."""
        for writer in self._writers:
            writer.transport.abort()
        self._requests_flow.set()
        self._answers_flow.set()

    def break_off(self) -> None:
        """Break the connections and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def mend(self) -> None:
        """Take connections, on the same port as ever."""
        if self._server is None:
            self._server = await asyncio.start_server(self._join, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    def freeze(self) -> None:
        """Keep connections open and let nothing through, in either direction."""
        self._requests_flow.clear()
        self._answers_flow.clear()

    def hold_answers(self) -> None:
        """Let the server hear everything and the client nothing, until the connection is cut."""
        self._answers_flow.clear()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, requests = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, requests}
        for flow, source, target in (
            (self._requests_flow, reader, requests),
            (self._answers_flow, answers, writer),
        ):
            pump = asyncio.create_task(self._pump(flow, source, target))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, flow: asyncio.Event, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                while data := await source.read(_CHUNK_BYTES):
                    await flow.wait()
                    target.write(data)
                    await target.drain()
        finally:
            target.close()
            self._writers.discard(target)
