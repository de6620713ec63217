import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from deploy.local.throwaway import Server
from tests.simulation.campaign import ENVIRONMENT, ROOT, Campaign
from tests.simulation.faults import Swarm
from tests.simulation.runner import Runner, opened_runner

CALM = Swarm({}, {}, frozenset(), 4.0)
SEEDS = int(os.environ.get("TENURE_SIMULATION_SEEDS", "1000"))
WORKERS = 2


@pytest.fixture(scope="module")
def runner(postgres_server: Server) -> Iterator[Runner]:
    with opened_runner(postgres_server.admin_url) as runner:
        yield runner


def test_without_faults_everything_is_well_and_time_is_not_wasted(runner: Runner) -> None:
    outcome = runner.run(1, swarm=CALM)

    assert outcome.violations == ()
    assert runner.world is not None
    assert runner.world.effects
    assert all(database.polls_saved for name, database in runner.world.databases.items() if name != "application"), (
        "services poll with statements that the simulation does not know: see tests/simulation/database.py"
    )


@pytest.mark.parametrize("seed", [3, 4, 7])
def test_a_seed_leaves_the_same_trace_each_time(runner: Runner, seed: int) -> None:
    first = runner.run(seed)
    assert runner.world is not None
    before = list(runner.world.trace.lines())
    second = runner.run(seed)
    assert runner.world is not None

    assert list(runner.world.trace.lines()) == before
    assert first.counts == second.counts
    assert first.violations == second.violations


def test_another_process_replays_a_seed_exactly(postgres_server: Server, runner: Runner) -> None:
    digests = set()
    for _ in range(2):
        told = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", "5"],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT, "TENURE_TEST_POSTGRES_URL": postgres_server.admin_url},
            capture_output=True,
            text=True,
            check=False,
        )
        digests.add(next(line for line in told.stdout.splitlines() if line.startswith("seed 5:")))

    assert len(digests) == 1, digests


@pytest.mark.timeout(1800)
def test_no_seed_breaks_a_promise(postgres_server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    def say(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)  # noqa: T201 - minutes pass, and the figures are the point

    report = Campaign(postgres_server.admin_url, range(1, SEEDS + 1), say=say).run(WORKERS)
    for line in report.lines():
        say(line)

    assert not report.failures
    assert report.seeds == SEEDS
    assert SEEDS < 500 or not report.never
