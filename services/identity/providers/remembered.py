"""What providers publish about themselves, remembered for a while and asked for once, however many wait for it."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from services.identity.bounded import Bounded
from shared.clock import Clock

LIFETIME = timedelta(hours=1)
"""How long an answer is good."""

_MOST = 500

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class SingleFlight(Generic[KeyT, ValueT]):
    """Does the same thing once at a time: whoever asks meanwhile gets the same answer, or the same error.

    Args:
        work: what is done. Nobody who gives up waiting stops it, so it has to end by itself.
    """

    def __init__(self, work: Callable[[KeyT], Awaitable[ValueT]]) -> None:
        self._work = work
        self._tasks: dict[KeyT, asyncio.Task[ValueT]] = {}

    async def __call__(self, key: KeyT) -> ValueT:
        """Return what the work under way returns, else that of work begun now."""
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.create_task(self._do(key))
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._end(key, done))
        return await asyncio.shield(task)

    async def _do(self, key: KeyT) -> ValueT:
        return await self._work(key)

    def _end(self, key: KeyT, task: asyncio.Task[ValueT]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # looked at, since nobody may be waiting for it any more


@dataclass(frozen=True, slots=True)
class _Held(Generic[ValueT]):
    value: ValueT
    asked_at: datetime


class Remembered(Generic[ValueT]):
    """Remembers what is read from URLs; failures are not remembered.

    Args:
        read: reads one, in bounded time.
    """

    def __init__(self, read: Callable[[str], Awaitable[ValueT]], *, clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._held: Bounded[str, _Held[ValueT]] = Bounded(_MOST)
        self._flights: SingleFlight[str, ValueT] = SingleFlight(self._refresh)

    async def get(self, url: str, *, younger_than: timedelta = LIFETIME) -> ValueT:
        """Return what was read from a URL less than so long ago, else what is read now, with what that raises."""
        held = self._held.get(url)
        if held is not None and self._clock.now() - held.asked_at < younger_than:
            return held.value
        return await self._flights(url)

    async def _refresh(self, url: str) -> ValueT:
        asked_at = self._clock.now()
        value = await self._read(url)
        self._held.put(url, _Held(value, asked_at))
        return value
