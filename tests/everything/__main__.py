"""`python -m tests.everything`: all tests, in two halves side by side, each a pytest of its own with its own databases.

One half alone leaves most of two processors idle: it waits for disks, brokers and clocks. What each half says is shown
whole when it has ended; until then a line a minute says how far they are.
"""

import asyncio
import os
import re
import signal
import sys
import tempfile
import time
from asyncio.subprocess import STDOUT, Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.local.rabbitmq import MissingBrokerError, find_broker

HALVES = (("shared", "services"), ("deploy", "docs", "tests"))
"""What is passed side by side: every folder of ``testpaths`` once, in halves that take about as long."""

_BETWEEN_LINES = 60.0
_PERCENTAGE = re.compile(rb"\[ *(\d+)%\]")
_TAIL = 4096


@dataclass(frozen=True)
class Half:
    """A pytest that runs.

    Attributes:
        folders: whose tests it passes.
        process: that does it.
        said: what it has said so far.
    """

    folders: Sequence[str]
    process: Process
    said: Path

    @property
    def progress(self) -> str:
        """Say how far it is."""
        found = _PERCENTAGE.findall(_end_of(self.said))
        how_far = "done" if self.process.returncode is not None else f"{int(found[-1]) if found else 0} %"
        return f"{' '.join(self.folders)} {how_far}"


async def passed(parts: Sequence[Sequence[str]] = HALVES) -> bool:
    """Pass the tests of folders, and tell whether all did; whatever is not over when this is cancelled is ended."""
    began = time.monotonic()
    if "TENURE_AMQP_URL" not in os.environ:
        with suppress(MissingBrokerError):  # which the tests that need one will say
            find_broker(print)  # so that not both install it at once
    with tempfile.TemporaryDirectory(prefix="tenure-tests-") as folder:
        halves = [await _started(folders, Path(folder) / f"{number}.log") for number, folders in enumerate(parts)]
        print(f"Passing {' and '.join(' '.join(half.folders) for half in halves)} side by side; this takes a while.")
        try:
            await _watched(halves, began)
        finally:
            await asyncio.gather(*map(_ended, halves))
    return all(half.process.returncode == 0 for half in halves)


async def _started(folders: Sequence[str], said: Path) -> Half:
    with said.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pytest", "--color=no", *folders, stdout=output, stderr=STDOUT
        )
    return Half(folders, process, said)


async def _watched(halves: Sequence[Half], began: float) -> None:
    """Say every minute how far the halves are, and of each that ends what it said."""
    running = {asyncio.create_task(half.process.wait()): half for half in halves}
    while running:
        ended, _ = await asyncio.wait(running, timeout=_BETWEEN_LINES, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            sys.stdout.write(running.pop(task).said.read_text(encoding="utf-8", errors="replace"))
        minutes = (time.monotonic() - began) / _BETWEEN_LINES
        print(f"{minutes:.0f} min: {', '.join(half.progress for half in halves)}", flush=True)


async def _ended(half: Half) -> None:
    if half.process.returncode is None:
        half.process.send_signal(signal.SIGINT)  # upon which it stops what it has started
        await half.process.wait()


def _end_of(file: Path) -> bytes:
    with file.open("rb") as said:
        said.seek(max(0, file.stat().st_size - _TAIL))
        return said.read()


if __name__ == "__main__":
    try:
        sys.exit(0 if asyncio.run(passed()) else 1)
    except KeyboardInterrupt:
        sys.exit("stopped")
