"""Running somebody else's program: with bounds on its time and its output, and nothing of it left afterwards."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_LAST_WORDS_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a program may use.

    Attributes:
        seconds: how long it may run.
        grace_seconds: how long it may take to stop when it is asked to.
        output: how many bytes it may print.
        log: how many bytes of what it says on standard error are kept, the last ones.
    """

    seconds: float
    grace_seconds: float = 10.0
    output: int = 1024 * 1024
    log: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ran:
    """What has become of a program.

    Attributes:
        exit_code: negative is the signal that ended it.
        output: what it has printed.
        log: the end of what it has said on standard error.
        is_late: it was stopped because it took too long.
        is_excessive: it was stopped because it printed too much.
    """

    exit_code: int
    output: bytes
    log: bytes
    is_late: bool = False
    is_excessive: bool = False


async def run_program(
    program: Path,
    *,
    given: bytes,
    environment: Mapping[str, str],
    folder: Path,
    bounds: Bounds,
    kept_open: Sequence[int] = (),
) -> Ran:
    """Run a program to its end, in a group of processes of its own that has ended when this returns or raises.

    Only what leaves its group by itself (``setsid``) can live on. A program that is to stop, because its time is over
    or this call is cancelled, is asked to (SIGTERM, the whole group) and killed after the grace.

    Args:
        given: what it reads on standard input.
        environment: all variables that it has.
        folder: where it works.
        kept_open: file descriptors that it inherits.

    Raises:
        OSError: it cannot be started.
    """
    loop = asyncio.get_running_loop()
    start = loop.subprocess_exec(
        lambda: _Run(loop, bounds),
        str(program),
        env=dict(environment),
        cwd=folder,
        start_new_session=True,
        pass_fds=tuple(kept_open),
    )
    run = await _started(asyncio.ensure_future(start), bounds)
    is_late = False
    async with _ended(run, bounds):
        run.give(given)
        try:
            async with asyncio.timeout(bounds.seconds):
                await asyncio.wait({run.exited, run.overflowed}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            is_late = True
    return Ran(run.exit_code, bytes(run.output), bytes(run.log), is_late, run.overflowed.done())


async def _started(start: "asyncio.Future[tuple[asyncio.SubprocessTransport, _Run]]", bounds: Bounds) -> "_Run":
    """Wait until a program has started; a start that was itself cancelled would leave running what it has started."""
    try:
        _, run = await asyncio.shield(start)
    except asyncio.CancelledError:
        while not start.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({start})
        if start.exception() is None:
            async with _ended(start.result()[1], bounds):
                pass
        raise
    return run


@asynccontextmanager
async def _ended(run: "_Run", bounds: Bounds) -> AsyncIterator[None]:
    """Let nothing of a program run on after a block, whatever ends the block."""
    try:
        yield
    finally:
        try:
            if not run.exited.done():
                run.signal(signal.SIGTERM)
                await asyncio.wait({run.exited}, timeout=bounds.grace_seconds)
        finally:
            run.signal(signal.SIGKILL)  # what it has left behind too
            try:
                # Killed, it ends at once; what it has printed before is still read.
                await asyncio.wait({run.closed}, timeout=_LAST_WORDS_SECONDS)
            finally:
                run.close()


class _Run(asyncio.SubprocessProtocol):
    """A program that runs, and what it has said so far."""

    def __init__(self, loop: asyncio.AbstractEventLoop, bounds: Bounds) -> None:
        self.exited: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.overflowed: asyncio.Future[None] = loop.create_future()
        self.output = bytearray()
        self.log = bytearray()
        self._bounds = bounds
        self._transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == _STDERR:
            self.log += data
            del self.log[: -self._bounds.log]
        elif len(self.output) + len(data) <= self._bounds.output:
            self.output += data
        elif not self.overflowed.done():
            self.overflowed.set_result(None)

    def process_exited(self) -> None:
        self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface has it
        self.closed.set_result(None)

    @property
    def exit_code(self) -> int:
        assert self._transport is not None
        code = self._transport.get_returncode()
        return -signal.SIGKILL if code is None else code

    def give(self, text: bytes) -> None:
        """Write all that it is to read; a program that does not read it is none the worse for it."""
        assert self._transport is not None
        pipe = self._transport.get_pipe_transport(_STDIN)
        assert isinstance(pipe, asyncio.WriteTransport)
        pipe.write(text)
        pipe.write_eof()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, whatever is left of it."""
        assert self._transport is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._transport.get_pid(), number)

    def close(self) -> None:
        """Read and wait no more."""
        assert self._transport is not None
        self._transport.close()
