import asyncio
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from tests.simulation.loop import StandstillError, VirtualLoop


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    loop.close()


def run(loop: VirtualLoop, work: Coroutine[Any, Any, Any]) -> Any:
    return loop.run_until_complete(work)


def test_a_day_passes_in_no_time(loop: VirtualLoop) -> None:
    began = time.monotonic()

    run(loop, asyncio.sleep(86_400))

    assert loop.time() == pytest.approx(86_400)
    assert time.monotonic() - began < 1


def test_timers_go_off_in_their_order_and_at_their_time(loop: VirtualLoop) -> None:
    went_off: list[tuple[str, float]] = []

    async def wait(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        went_off.append((name, loop.time()))

    async def all_of_them() -> None:
        await asyncio.gather(wait("late", 30), wait("early", 0.25), wait("between", 7))

    run(loop, all_of_them())

    assert went_off == [("early", 0.25), ("between", 7), ("late", 30)]


def test_time_stands_still_while_something_real_is_under_way(loop: VirtualLoop) -> None:
    timed_out = False

    async def exchange() -> bytes:
        nonlocal timed_out
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        answering = threading.Timer(0.2, theirs.send, [b"hello"])
        answering.start()
        loop.under_way += 1
        try:
            async with asyncio.timeout(0.05):
                return await loop.sock_recv(ours, 5)
        except TimeoutError:
            timed_out = True
            raise
        finally:
            loop.under_way -= 1
            answering.join()
            ours.close()
            theirs.close()

    assert run(loop, exchange()) == b"hello"
    assert not timed_out
    assert loop.time() == 0


def test_held_back_work_begins_only_when_nothing_else_is_ready(loop: VirtualLoop) -> None:
    happened: list[str] = []
    held_back = ["held back"]

    def begin() -> bool:
        if not held_back:
            return False
        happened.append(held_back.pop())
        return True

    async def several_turns() -> None:
        for turn in range(3):
            happened.append(f"turn {turn}")
            await asyncio.sleep(0)
        await asyncio.sleep(1)
        happened.append("later")

    loop.when_idle = begin
    run(loop, several_turns())

    assert happened == ["turn 0", "turn 1", "turn 2", "held back", "later"]
    assert loop.time() == 1


def test_when_nothing_can_ever_happen_it_says_so(loop: VirtualLoop) -> None:
    async def wait_for_nobody() -> None:
        await asyncio.Event().wait()

    with pytest.raises(StandstillError, match="nothing will ever happen"):
        run(loop, wait_for_nobody())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    run(loop, asyncio.sleep(0))


def test_a_moment_that_does_not_end_is_ended(loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.simulation.loop._LONGEST_MOMENT", 1000)
    is_over = False

    async def spin() -> None:
        while not is_over:  # noqa: ASYNC110 - the mistake that is to be noticed
            await asyncio.sleep(0)

    with pytest.raises(StandstillError, match="without an end"):
        run(loop, spin())
    is_over = True
    run(loop, asyncio.sleep(1))


def test_rewound_it_begins_at_zero_without_the_timers_of_before(loop: VirtualLoop) -> None:
    went_off: list[str] = []
    run(loop, asyncio.sleep(5))
    loop.call_later(1, went_off.append, "of before")

    loop.rewind()
    run(loop, asyncio.sleep(10))

    assert loop.time() == 10
    assert not went_off
