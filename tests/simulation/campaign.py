"""Many seeds over several worker processes, and what they came to together."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.local.postgres import PostgresServer
from tests.simulation.runner import Outcome, Runner, opened_runner
from tests.simulation.sometimes import SOMETIMES

ROOT = Path(__file__).resolve().parents[2]

ENVIRONMENT: Mapping[str, str] = {"PYTHONHASHSEED": "0"}
"""Of every process that runs simulations: without, the order of a set of texts would be another each time."""

_PROGRESS_SECONDS = 5.0
_MOST_FAILURES = 10
_DIED = "L0 the simulator itself failed:\n"

Say = Callable[[str], None]


@dataclass
class Report:
    """What a campaign came to.

    Attributes:
        failures: the outcomes with broken promises.
        counts: what happened in all seeds together.
        sometimes: in how many seeds each of the things happened that must happen now and then.
    """

    seeds: int = 0
    failures: list[Outcome] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    sometimes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def never(self) -> list[str]:
        """What should have happened and never did."""
        return [name for name in SOMETIMES if not self.sometimes[name]]

    def add(self, outcome: Outcome) -> None:
        """Take one seed into account."""
        self.seeds += 1
        self.counts.update(outcome.counts)
        self.sometimes.update(outcome.sometimes)
        if outcome.violations:
            self.failures.append(outcome)

    def lines(self) -> Iterator[str]:
        """Describe it for people."""
        for outcome in self.failures:
            yield f"seed {outcome.seed} broke {len(outcome.violations)} promises; again: {replay(outcome.seed)}"
            yield from (f"    {line}" for each in outcome.violations[:5] for line in each.splitlines())
        yield f"{self.seeds} seeds in {self.seconds:.0f} s, {len(self.failures)} failed"
        for title, part in (("What happened", self.counts), ("In how many seeds", self.sometimes)):
            yield f"{title}:"
            yield from (f"  {part[name]:9,} {name}" for name in sorted(part))
        yield from (f"Never happened, so this campaign proves nothing: {name}" for name in self.never)


def replay(seed: int) -> str:
    """Return the command that runs a seed again and prints all that happens."""
    return f"python -m tests.simulation --seed {seed}"


class Campaign:
    """Runs seeds until there are none left, or too many have failed.

    Args:
        admin_url: the server that all workers make their databases on.
        say: told how far it is.
    """

    def __init__(self, admin_url: str, seeds: Iterable[int], *, say: Say) -> None:
        self.report = Report()
        self._admin_url = admin_url
        self._seeds = iter(seeds)
        self._say = say
        self._lock = threading.Lock()
        self._began = self._said = time.monotonic()

    def run(self, workers: int) -> Report:
        """Run all seeds."""
        threads = [threading.Thread(target=self._work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.report.seconds = time.monotonic() - self._began
        return self.report

    def _work(self) -> None:
        while (seed := self._next()) is not None:
            with _worker(self._admin_url) as process:
                while seed is not None:
                    outcome = _asked(process, seed)
                    self._take(outcome)
                    if outcome.violations and outcome.violations[0].startswith(_DIED):
                        break
                    seed = self._next()

    def _next(self) -> int | None:
        with self._lock:
            return None if len(self.report.failures) >= _MOST_FAILURES else next(self._seeds, None)

    def _take(self, outcome: Outcome) -> None:
        with self._lock:
            self.report.add(outcome)
            now = time.monotonic()
            if outcome.violations:
                self._say(f"seed {outcome.seed} failed: {outcome.violations[0][-300:]}")
            if now - self._said > _PROGRESS_SECONDS:
                self._said = now
                pace = self.report.seeds / (now - self._began)
                self._say(f"{self.report.seeds} seeds, {len(self.report.failures)} failed, {pace:.1f} a second")


@contextmanager
def _worker(admin_url: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.simulation", "--worker"],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(admin_url + "\n")
    process.stdin.flush()
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _asked(process: "subprocess.Popen[str]", seed: int) -> Outcome:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(f"{seed}\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    if not line:
        process.wait()
        return _failed(seed, f"its process ended with {process.returncode}")
    told: dict[str, Any] = json.loads(line)
    told |= {
        "violations": tuple(told["violations"]),
        "counts": Counter(told["counts"]),
        "sometimes": frozenset(told["sometimes"]),
    }
    return Outcome(**told)


def _failed(seed: int, reason: str) -> Outcome:
    return Outcome(seed, (f"{_DIED}{reason}",), Counter(), frozenset(), "", 0.0)


def work() -> None:
    """Be a worker: read the server's URL and then seeds from standard input, and answer each with its outcome."""
    with opened_runner(sys.stdin.readline().strip()) as runner:
        for line in sys.stdin:
            print(json.dumps(_told(runner, int(line))), flush=True)  # noqa: T201 - this is how it answers
            if runner.is_broken:
                break


def _told(runner: Runner, seed: int) -> dict[str, Any]:
    try:
        outcome = runner.run(seed)
    except Exception:  # noqa: BLE001 - whatever it is, the seed is told with it
        runner.is_broken = True
        outcome = _failed(seed, traceback.format_exc())
    return vars(outcome) | {"sometimes": sorted(outcome.sometimes)}


@contextmanager
def throwaway_postgres() -> Iterator[str]:
    """Yield the URL of a server that is gone afterwards, or of the one that ``TENURE_TEST_POSTGRES_URL`` names."""
    if url := os.environ.get("TENURE_TEST_POSTGRES_URL"):
        yield url
        return
    server = PostgresServer(Path(tempfile.mkdtemp(prefix="tenure-simulation-")), durable=False)
    asyncio.run(server.start())
    try:
        yield server.admin_url
    finally:
        server.kill()
        shutil.rmtree(server.folder, ignore_errors=True)
