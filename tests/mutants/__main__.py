"""Plant every defect, one at a time, in a copy of the repository, and see whether the tests notice.

python -m tests.mutants [WORDS]     only the defects whose names contain the words
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from tests.mutants.defect import Defect, StaleDefectError
from tests.mutants.list import DEFECTS

ROOT = Path(__file__).resolve().parents[2]

_LEFT_OUT = (
    ".git",
    ".venv",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    "node_modules",
)
_WORKERS = 2
_SECONDS = 300
_FAILED = 1


@dataclass(frozen=True)
class Verdict:
    """What the tests made of a defect.

    Attributes:
        caught_by: the tests that failed; None if all passed.
        trouble: why nothing can be said, such as a test that could not even begin.
    """

    defect: Defect
    seconds: float
    caught_by: str | None = None
    trouble: str | None = None

    def __str__(self) -> str:
        """Return it as one line."""
        outcome = f"caught by {self.caught_by}" if self.caught_by else self.trouble or "NOT CAUGHT"
        return f"{self.defect.name}: {outcome} ({self.seconds:.0f} s)"


@contextmanager
def copies(count: int) -> Iterator[Queue[Path]]:
    """Make copies of the repository, which are gone at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="tenure-mutants-") as folder:
        free: Queue[Path] = Queue()
        for number in range(count):
            copy = Path(folder) / str(number)
            shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=True)
            free.put(copy)
        yield free


def judge(defect: Defect, free: Queue[Path]) -> Verdict:
    """Plant a defect in a copy that is free, run the tests that have to see it, and take it out again."""
    started = time.monotonic()
    copy = free.get()
    path = copy / defect.file
    sound = path.read_text(encoding="utf-8")
    try:
        path.write_text(defect.planted_in(copy), encoding="utf-8")
        for tests in defect.caught_by:
            code, words = _run(copy, tests)
            if code == _FAILED:
                return Verdict(defect, time.monotonic() - started, caught_by=tests)
            if code:
                return Verdict(defect, time.monotonic() - started, trouble=f"{tests} did not run: {words}")
        return Verdict(defect, time.monotonic() - started)
    except StaleDefectError as error:
        return Verdict(defect, time.monotonic() - started, trouble=str(error))
    finally:
        path.write_text(sound, encoding="utf-8")
        free.put(copy)


def _run(copy: Path, tests: str) -> tuple[int, str]:
    """Run some tests until the first fails; a test that hangs has failed too."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", tests]
    try:
        run = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return _FAILED, "timed out"
    return run.returncode, "\n".join(run.stdout.splitlines()[-5:])


def main(words: Sequence[str]) -> int:
    """Judge all defects, or those that are named; return the exit code: 0 if every one was caught."""
    wanted = [defect for defect in DEFECTS if all(word in defect.name for word in words)]
    print(f"Planting {len(wanted)} defects, {_WORKERS} at a time ...", flush=True)
    caught = 0
    with copies(_WORKERS) as free, ThreadPoolExecutor(_WORKERS) as workers:
        for number, verdict in enumerate(workers.map(lambda defect: judge(defect, free), wanted), start=1):
            caught += verdict.caught_by is not None
            print(f"[{number}/{len(wanted)}] {verdict}", flush=True)
    print(f"{caught} of {len(wanted)} planted defects were caught.")
    return 0 if caught == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
