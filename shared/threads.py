"""Threads for clients that know no other way of waiting than to block."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from shared.http import Problem

Result = TypeVar("Result")


class Threads:
    """A few threads, for so much work at a time; how long any of it may take is for the caller to bound.

    Args:
        count: how many there are.
        most: how much may be under way or waiting for a thread; more is turned away.
        name: what they are called.
        detail: what whoever is turned away is told.
    """

    def __init__(
        self, count: int, *, most: int, name: str, detail: str = "Too much is being asked at this moment."
    ) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._most = most
        self._detail = detail
        self._waiting = 0

    async def run(self, work: Callable[[], Result]) -> Result:
        """Return what the work returns. Whoever stops waiting for work that has begun does not stop the work.

        Raises:
            Problem: 503 when too much is waiting already.
        """
        if self._waiting >= self._most:
            raise Problem(503, code="overloaded", detail=self._detail, headers={"Retry-After": "2"})
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Begin nothing any more; what has begun ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)
