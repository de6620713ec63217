"""Processes of this machine, looked at and signalled through Linux's ``/proc``."""

import asyncio
import fcntl
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, TypeVar

_PROC = Path("/proc")
_POLL_SECONDS = 0.02
Value = TypeVar("Value")


class FolderInUseError(Exception):
    """Another running process already works with this data folder."""


class ServerFailedError(Exception):
    """A server did not start, or did not become ready in time."""


class FolderLock:
    """Keeps two runners off one data folder; the kernel gives it up when its holder dies, however that happens.

    Args:
        folder: an existing folder; the lock is its file ``lock``.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock; nothing happens when this object holds it already.

        Raises:
            FolderInUseError: somebody else holds it. The message names the process.
        """
        if self._file is not None:
            return
        file = self._path.open("a+", encoding="ascii")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise FolderInUseError(f"{self._path.parent} is in use by process {holder or 'unknown'}.") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give the lock up; nothing happens when it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended and was not yet collected by its parent does not."""
    return _state(pid) not in {"", "Z", "X"}


def name_of(pid: int) -> str:
    """Return the short name of a process, empty when it is gone."""
    try:
        return (_PROC / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those that these started, parents first."""
    children: dict[int, list[int]] = {}
    for candidate in _pids():
        children.setdefault(_parent(candidate), []).append(candidate)
    found: list[int] = []
    unvisited = [pid]
    while unvisited:
        below = children.get(unvisited.pop(), [])
        found += below
        unvisited += below
    return found


def working_in(folder: Path, names: Collection[str]) -> list[int]:
    """Return the processes called one of ``names`` whose working directory is ``folder``.

    Servers are started with their data folder as working directory, so this finds what a runner that was killed
    hard has left behind, without trusting a pid file whose number may long belong to somebody else.
    """
    return [pid for pid in _pids() if name_of(pid) in names and _working_directory(pid) == folder.resolve()]


def freeze(pid: int) -> None:
    """Stop a process where it is, then all that it started; connections stay open and silent."""
    _signal(pid, signal.SIGSTOP)
    for child in descendants(pid):
        _signal(child, signal.SIGSTOP)


def thaw(pid: int) -> None:
    """Let a frozen process and all that it started go on."""
    for process in (*descendants(pid), pid):
        _signal(process, signal.SIGCONT)


def kill(pid: int, *, seconds: float = 10.0) -> None:
    """End a process and all that it started, at once and without a chance to clean up.

    Args:
        pid: frozen first, so that it cannot start anything while its children are counted.
        seconds: how long to wait until all are gone.
    """
    _signal(pid, signal.SIGSTOP)
    family = [pid, *descendants(pid)]
    for process in family:
        _signal(process, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, family)), seconds=seconds)


def wait_until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Block until a condition holds, at most ``seconds``; return whether it does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


async def in_thread(function: Callable[[], Value]) -> Value:
    """Run something that blocks in a thread, to its end also when we are cancelled meanwhile.

    A thread cannot be interrupted. Who goes on without it leaves the process that it is about to start to nobody.
    """
    work = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.gather(work, return_exceptions=True)
        raise


def last_lines(path: Path, count: int = 20) -> str:
    """Return the end of a log file, for the message of a failed start."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return f"({error})"
    return "\n".join(lines[-count:]) or f"({path} is empty)"


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def _stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/<pid>/stat`` after the name, which may itself contain spaces and brackets."""
    try:
        return (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _state(pid: int) -> str:
    return next(iter(_stat(pid)), "")


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _working_directory(pid: int) -> Path | None:
    try:
        return (_PROC / str(pid) / "cwd").readlink()
    except OSError:
        return None


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
