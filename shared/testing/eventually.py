"""Waiting for a condition that describes its own failure, instead of sleeping and hoping."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from shared.clock import ManualClock

_POLL_SECONDS = 0.02
_HURRIED_POLL_SECONDS = 0.004

Condition = Callable[[], bool | Awaitable[bool]]


async def eventually(condition: Condition, *, within: float = 10.0, describe: str | Callable[[], str] = "") -> None:
    """Return as soon as the condition holds.

    Args:
        condition: asked again and again; plain or asynchronous.
        within: seconds after which waiting is given up.
        describe: what was waited for, or what makes that sentence at the moment of giving up.

    Raises:
        AssertionError: it did not come to hold.
    """
    await _wait(condition, lambda: asyncio.sleep(_POLL_SECONDS), within, describe)


async def hurry(
    clock: ManualClock,
    condition: Condition,
    *,
    step: float = 0.5,
    within: float = 10.0,
    describe: str | Callable[[], str] = "",
) -> None:
    """Move a clock on, step by step, until the condition holds.

    Args:
        condition: asked again and again; plain or asynchronous.
        step: how many of the clock's seconds pass between two looks.
        within: real seconds after which waiting is given up.
        describe: what was waited for, or what makes that sentence at the moment of giving up.

    Raises:
        AssertionError: it did not come to hold.
    """

    async def move() -> None:
        await asyncio.sleep(_HURRIED_POLL_SECONDS)  # for what waits on something real, such as a database
        await clock.advance(step)

    await _wait(condition, move, within, describe)


async def _wait(
    condition: Condition, pause: Callable[[], Awaitable[None]], within: float, describe: str | Callable[[], str]
) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        holds = condition()
        if inspect.isawaitable(holds):
            holds = await holds
        if holds:
            return
        if loop.time() >= deadline:
            sentence = describe() if callable(describe) else describe
            raise AssertionError(f"not within {within} s: {sentence or condition}")
        await pause()
