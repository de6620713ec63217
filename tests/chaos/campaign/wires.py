"""The connections between a service and what it stands on, with a count of what a disturbance has met.

They run in a thread of their own. Beside the campaign's customers, of whom there are hundreds after a long freeze, each
piece of data would wait for all of them, and what is slow would be the campaign and not what it looks at.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Literal, Self, TypeVar

import uvloop

from shared.testing.wire import Wire

End = Literal["broker", "database"]
Result = TypeVar("Result")

_SECONDS = 10.0


class _Gate(asyncio.Event):
    """Lets bytes through, or counts how often it did not."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 0

    async def wait(self) -> Literal[True]:
        self.held += not self.is_set()
        return await super().wait()


class CountingWire(Wire):
    """A wire that can say whether anybody noticed."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._requests_flow = _Gate()
        self._answers_flow = _Gate()

    @property
    def connections(self) -> int:
        """How many lead through it; each has two ends here."""
        return len(self._writers) // 2

    @property
    def held(self) -> int:
        """How many pieces of data had to wait, ever."""
        gates: list[Any] = [self._requests_flow, self._answers_flow]
        return sum(gate.held for gate in gates)

    def thaw(self) -> None:
        """Let everything through that was held, and all that follows."""
        self._requests_flow.set()
        self._answers_flow.set()


@contextmanager
def loop_aside() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread of its own until the end of the block."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="wires", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_SECONDS)
        loop.close()


class WireAside:
    """A counting wire on another thread's loop; what is asked of it is done when the call returns.

    Args:
        loop: as `loop_aside` runs it.
        url: where the server is.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, url: str) -> None:
        self._loop = loop
        self._wire = CountingWire(url)

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        await self._awaited(self._wire.__aenter__)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut everything and stop listening."""
        await self._awaited(self._wire.__aexit__)

    def through(self, url: str) -> str:
        """Return a URL of the server, with any login, that leads through this wire."""
        return self._wire.through(url)

    @property
    def connections(self) -> int:
        """How many lead through it."""
        return self._done(lambda: self._wire.connections)

    @property
    def held(self) -> int:
        """How many pieces of data had to wait, ever."""
        return self._done(lambda: self._wire.held)

    def cut(self) -> None:
        """Break the connections that there are; new ones can be made."""
        self._done(self._wire.cut)

    def freeze(self) -> None:
        """Keep connections open and let nothing through, in either direction."""
        self._done(self._wire.freeze)

    def thaw(self) -> None:
        """Let everything through that was held, and all that follows."""
        self._done(self._wire.thaw)

    def _done(self, action: Callable[[], Result]) -> Result:
        done: Future[Result] = Future()

        def act() -> None:
            try:
                done.set_result(action())
            except BaseException as error:  # noqa: BLE001 - whoever asked gets it
                done.set_exception(error)

        self._loop.call_soon_threadsafe(act)
        return done.result(_SECONDS)

    async def _awaited(self, action: Callable[[], Awaitable[Any]]) -> None:
        async def act() -> None:
            await action()

        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(act(), self._loop))
