"""Waiting for a condition that describes its own failure, instead of sleeping and hoping."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

_POLL_SECONDS = 0.02


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]], *, within: float = 10.0, describe: str | Callable[[], str] = ""
) -> None:
    """Return as soon as the condition holds.

    Args:
        condition: asked again and again; plain or asynchronous.
        within: seconds after which waiting is given up.
        describe: what was waited for, or what makes that sentence at the moment of giving up.

    Raises:
        AssertionError: it did not come to hold.
    """
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
        await asyncio.sleep(_POLL_SECONDS)
