import asyncio
import threading
from collections.abc import Iterator

import pytest

from shared.http import Problem
from shared.threads import Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads(1, most=2, name="test")
    yield threads
    threads.close()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


async def test_work_is_done_elsewhere_and_comes_back(threads: Threads) -> None:
    assert await threads.run(threading.get_ident) != threading.get_ident()


async def test_an_error_comes_back_too(threads: Threads) -> None:
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)


async def test_too_much_at_once_is_turned_away_until_there_is_room(threads: Threads, gate: threading.Event) -> None:
    both = [asyncio.create_task(threads.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0)

    with pytest.raises(Problem) as caught:
        await threads.run(gate.wait)
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "2"})

    gate.set()
    await asyncio.gather(*both)
    assert await threads.run(lambda: "done") == "done"


async def test_work_that_nobody_waits_for_any_more_is_not_begun(threads: Threads, gate: threading.Event) -> None:
    begun: list[str] = []
    first = asyncio.create_task(threads.run(gate.wait))
    second = asyncio.create_task(threads.run(lambda: begun.append("second")))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait({second})  # before that, the thread may be faster
    gate.set()
    await first

    await threads.run(lambda: begun.append("third"))
    assert begun == ["third"]
