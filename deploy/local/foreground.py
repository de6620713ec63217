"""A command in the foreground: signals end it in order, and what a person can mend is said without a traceback."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from deploy.local.console import say_problem
from deploy.local.entry import ENDING, ignore_signals
from deploy.local.ports import PortTakenError
from deploy.local.processes import FolderInUseError, FolderLock, ServerFailedError
from deploy.local.rabbitmq import MissingBrokerError
from deploy.local.stack import GivenServerError
from shared.logs import configure_logs
from shared.postgres import MigrationError
from shared.service import VERSION
from shared.settings import TracingSettings
from shared.tracing.exporting import exported

EXPECTED = (
    FolderInUseError,
    GivenServerError,
    MigrationError,
    MissingBrokerError,
    PortTakenError,
    ServerFailedError,
)
"""Failures that are no bug: their messages say what to do."""

FAILED = 1
"""The exit code after a failure that was said."""


class UnusableFolderError(Exception):
    """The data folder cannot be made or written."""


class Interrupts:
    """The signals that end a command: the first breaks off a start, or asks a running system to stop.

    Later ones change nothing.

    Attributes:
        stopping: set by the first.
    """

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self._breaks_off: asyncio.Task[Any] | None = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in ENDING:
            loop.add_signal_handler(number, self._arrived)

    def started(self) -> None:
        """From now on a signal only sets `stopping`; whoever waits for it stops in order."""
        self._breaks_off = None

    def _arrived(self) -> None:
        if not self.stopping.is_set():
            self.stopping.set()
            if self._breaks_off is not None:
                self._breaks_off.cancel()


def run(
    work: Callable[[Interrupts], Awaitable[int]], out: Console, *, interrupted: int, log_level: str = "warning"
) -> int:
    """Run a command to its end and return the exit code.

    Args:
        work: returns the exit code.
        out: where failures are said.
        interrupted: the exit code when a signal broke it off.
        log_level: from which on the log is shown; ``TENURE_LOG_LEVEL`` takes its place.
    """
    configure_logs(form=_log_form(), level=os.environ.get("TENURE_LOG_LEVEL", log_level))
    try:
        traced = exported(TracingSettings(), version=VERSION)
        with traced, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_interruptible(work, out, interrupted))
    except SystemExit:  # how uvicorn says that it could not bind
        say_problem(out, "Another process took the port while the servers started. Run it again.")
        return FAILED
    except Exception as error:
        reasons = [leaf for leaf in _leaves(error) if not isinstance(leaf, asyncio.CancelledError)]
        if not reasons or not all(isinstance(reason, (*EXPECTED, UnusableFolderError)) for reason in reasons):
            raise
        say_problem(out, str(reasons[0]))
        return FAILED
    finally:
        ignore_signals()


async def _interruptible(work: Callable[[Interrupts], Awaitable[int]], out: Console, interrupted: int) -> int:
    interrupts = Interrupts()
    try:
        return await work(interrupts)
    except asyncio.CancelledError:
        if not interrupts.stopping.is_set():
            raise
        out.print("\nInterrupted. Everything that was started is stopped.")
        return interrupted


@contextmanager
def own_folder(folder: Path, advice: str) -> Iterator[None]:
    """Make a data folder and keep other runs off it.

    Args:
        advice: what to type instead, when somebody works with it.

    Raises:
        UnusableFolderError: it cannot be made or written.
        FolderInUseError: another run works with it.
    """
    lock = FolderLock(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except FolderInUseError as error:
        raise FolderInUseError(f"The data folder {error} {advice}") from None
    except OSError as error:
        raise UnusableFolderError(
            f"The data folder {folder} cannot be used: {error.strerror}.\n"
            f"Choose another with TENURE_DATA_DIR=~/tenure-data, or mend this one."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _log_form() -> Any:
    return "json" if os.environ.get("TENURE_LOG_FORMAT") == "json" else "console"
