"""Other programs: what they say, what they write and what they read, with a limit to how long nothing comes of it."""

import gzip
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from deploy.backup.places import Words

Say = Callable[[str], None]

_STALLED_SECONDS = 300.0
_PROGRESS_SECONDS = 5.0
_PIECE = 1 << 20
_COMPRESSION = 1  # as fast as a disk; more would cost minutes for a tenth of the size


class ProgramFailedError(Exception):
    """A program ended with another code than 0, or said nothing for too long; the message has its last words."""


def said(*words: str, given: str = "", seconds: float = 60.0) -> str:
    """Run a program and return what it says.

    Args:
        given: what it reads.
    """
    try:
        done = subprocess.run(words, input=given, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise ProgramFailedError(f"{_shown(words)} took more than {seconds:.0f} s.") from None
    if done.returncode:
        raise ProgramFailedError(f"{_shown(words)} ended with {done.returncode}:\n{done.stderr}{done.stdout}".strip())
    return done.stdout


def written(path: Path, words: Words, say: Say) -> None:
    """Run a program and keep what it writes, compressed; tell now and then how much that is.

    Raises:
        ProgramFailedError: it failed, or wrote nothing for five minutes.
    """
    started = shown = time.monotonic()
    total = 0
    with _running(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process, _compressed(path, "wb") as file:
        while piece := _read(process):
            total += file.write(piece)
            if time.monotonic() - shown > _PROGRESS_SECONDS:
                shown = time.monotonic()
                say(f"{path.name}: {total / 1e6:,.0f} MB in {shown - started:.0f} s")


def read(path: Path, words: Words, say: Say) -> None:
    """Run a program that reads what `written` has kept; tell now and then how much it has read.

    Raises:
        ProgramFailedError: it failed, or read nothing for five minutes.
    """
    started = shown = time.monotonic()
    total = 0
    with _running(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process, _compressed(path, "rb") as file:
        while piece := file.read(_PIECE):
            try:
                _write(process, piece)
            except BrokenPipeError:
                break  # it has ended, and its exit code tells why
            total += len(piece)
            if time.monotonic() - shown > _PROGRESS_SECONDS:
                shown = time.monotonic()
                say(f"{path.name}: {total / 1e6:,.0f} MB in {shown - started:.0f} s")


@contextmanager
def _running(words: Words, *, stdin: int, stdout: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program beside the block, wait for its end, and raise what it complained of if it failed."""
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=complaints) as process,
    ):
        try:
            yield process
            process.communicate(timeout=_STALLED_SECONDS)
        except subprocess.TimeoutExpired:
            raise ProgramFailedError(f"{_shown(words)} has not ended for {_STALLED_SECONDS:.0f} s.") from None
        finally:
            process.kill()
        if process.returncode:
            raise ProgramFailedError(f"{_shown(words)} ended with {process.returncode}:\n{last_words(complaints)}")


def _read(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    if not select.select((process.stdout,), (), (), _STALLED_SECONDS)[0]:
        raise ProgramFailedError(f"{_shown(process.args)} has written nothing for {_STALLED_SECONDS:.0f} s.")
    return os.read(process.stdout.fileno(), _PIECE)


def _write(process: subprocess.Popen[bytes], piece: bytes) -> None:
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)  # who reads too slowly is noticed, and not waited for
    left = memoryview(piece)
    while left:
        if not select.select((), (process.stdin,), (), _STALLED_SECONDS)[1]:
            raise ProgramFailedError(f"{_shown(process.args)} has read nothing for {_STALLED_SECONDS:.0f} s.")
        left = left[os.write(process.stdin.fileno(), left) :]


def _compressed(path: Path, mode: str) -> gzip.GzipFile:
    return gzip.GzipFile(path, mode, compresslevel=_COMPRESSION)


def last_words(complaints: IO[bytes]) -> str:
    """Return the end of what a program has complained of."""
    complaints.seek(0)
    return "\n".join(complaints.read().decode(errors="replace").strip().splitlines()[-20:])


def _shown(words: object) -> str:
    """Return a command for people, without what it is told: that may be secret."""
    return " ".join(str(word) for word in words if "=" not in str(word)) if isinstance(words, list | tuple) else ""
