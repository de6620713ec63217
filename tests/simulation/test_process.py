import asyncio
from collections.abc import Iterator

import pytest

from tests.simulation.loop import VirtualLoop
from tests.simulation.process import Process, adopt, current


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    loop.set_task_factory(adopt)  # type: ignore[arg-type] # typeshed knows it without the context
    yield loop
    loop.close()


def test_whatever_it_begins_belongs_to_it_and_nothing_else_does(loop: VirtualLoop) -> None:
    async def story() -> None:
        process = Process("billing", 1, loop)

        async def begin() -> None:
            child = asyncio.create_task(asyncio.sleep(10))
            await asyncio.sleep(1)
            assert current() is process
            assert set(process.tasks) == {asyncio.current_task(), child}
            await child

        beginning = process.start(begin())
        mine = asyncio.create_task(asyncio.sleep(2))
        await mine
        assert current() is None
        assert mine not in process.tasks
        await beginning
        assert not process.tasks

    loop.run_until_complete(story())


def test_killed_it_ends_all_at_once_and_the_world_takes_back_first(loop: VirtualLoop) -> None:
    happened: list[str] = []

    async def story() -> None:
        process = Process("billing", 1, loop)
        process.on_death.append(lambda: happened.append("taken back"))

        async def work() -> None:
            try:
                await asyncio.sleep(10)
            finally:
                happened.append("unwound")

        process.start(work())
        process.start(work())
        await asyncio.sleep(1)
        process.kill()
        process.kill()
        await asyncio.sleep(1)
        assert process.died.done()
        assert not process.tasks

    loop.run_until_complete(story())

    assert happened == ["taken back", "unwound", "unwound"]


def test_a_dead_process_begins_nothing(loop: VirtualLoop) -> None:
    async def story() -> None:
        process = Process("billing", 1, loop)
        process.kill()
        task = process.start(asyncio.sleep(10))
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(asyncio.CancelledError):
            process.require_alive()

    loop.run_until_complete(story())
