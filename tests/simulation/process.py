"""A service's process that can be killed: whatever it has begun belongs to it and ends with it, without a last word."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from shared.service import Service

Result = TypeVar("Result")

_current: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


class Process:
    """One run of one service, from its start to its end.

    Attributes:
        service: its name; ``number`` counts its runs.
        tasks: what it has begun and not ended, in the order in which it was begun.
        on_death: what the world takes back when it dies, before any of its tasks hears of it.
        built: the service, as soon as it is put together.
        parts: what its HTTP routes work with.
    """

    def __init__(self, service: str, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.service = service
        self.number = number
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.on_death: list[Callable[[], None]] = []
        self.stopping = asyncio.Event()
        self.built: Service | None = None
        self.parts: dict[Any, Any] = {}
        self.is_dead = False
        self.died: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._context = contextvars.copy_context()
        self._context.run(_current.set, self)

    def start(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Begin something that belongs to the process."""
        return self._loop.create_task(work, context=self._context.copy())

    def kill(self) -> None:
        """End it at once: nothing that its tasks still do reaches anything outside."""
        if self.is_dead:
            return
        self.is_dead = True
        for take_back in reversed(self.on_death):
            take_back()
        for task in list(self.tasks):
            task.cancel()
        self.died.set_result(None)

    def require_alive(self) -> None:
        """Pass unless this process is dead; its remains unwind with this cancellation.

        Raises:
            CancelledError: it is dead.
        """
        if self.is_dead:
            raise asyncio.CancelledError(f"{self.service} is dead")


def current() -> Process | None:
    """Return the process that the running code belongs to; None for the world around them."""
    return _current.get()


def adopt(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, Any],
    *,
    context: contextvars.Context | None = None,
) -> asyncio.Task[Any]:
    """Make a task and give it to the process that begins it; the task factory of the loop."""
    task = asyncio.Task(work, loop=loop, context=context)
    owner = context.get(_current) if context is not None else _current.get()
    if owner is not None:
        owner.tasks[task] = None
        task.add_done_callback(lambda done: owner.tasks.pop(done, None))
        if owner.is_dead:
            task.cancel()
    return task
