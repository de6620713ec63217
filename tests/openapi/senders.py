"""The sending processes, seen from the test: as many as there are cores to keep busy, each given one run at a time."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.chaos.processes import ROOT
from tests.openapi.runs import Outcome, Run

_MOST_BYTES = 64 * 1024 * 1024
_KEPT = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "HOME")


class Sender:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def carry_out(self, run: Run) -> Outcome:
        """Have a run carried out.

        Raises:
            RuntimeError: the process has ended, which says why on standard error.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(run.model_dump_json().encode() + b"\n")
        await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"no answer for {run.service} as {run.identity}")
        return Outcome.model_validate_json(line)


@asynccontextmanager
async def senders(count: int) -> AsyncIterator[Sequence[Sender]]:
    """Start so many processes and end them."""
    processes = await asyncio.gather(*(_started() for _ in range(count)))
    try:
        yield [Sender(process) for process in processes]
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*(process.wait() for process in processes))


async def _started() -> asyncio.subprocess.Process:
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.openapi.sender",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT, env=environment, limit=_MOST_BYTES,
    )  # fmt: skip


async def carried_out(crew: Sequence[Sender], runs: Sequence[Run]) -> list[Outcome]:
    """Have all runs carried out, each by whoever is free; the outcomes come in the order of the runs."""
    waiting = iter(enumerate(runs))
    outcomes: dict[int, Outcome] = {}

    async def work(sender: Sender) -> None:
        for place, run in waiting:
            outcomes[place] = await sender.carry_out(run)

    async with asyncio.TaskGroup() as group:
        for sender in crew:
            group.create_task(work(sender))
    return [outcomes[place] for place in sorted(outcomes)]
