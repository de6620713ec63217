"""The command line of the simulation.

python -m tests.simulation --seeds 1000        many seeds, over two worker processes
python -m tests.simulation --seed 17           one seed, with all that happens in it
"""

import argparse
import os
import sys

from tests.simulation.campaign import ENVIRONMENT, Campaign, throwaway_postgres, work
from tests.simulation.runner import opened_runner


def main() -> int:
    """Do what the command line says, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Simulate the whole system.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--workers", type=int, default=2, help="processes to run them in")
    parser.add_argument("--seed", type=int, help="run this one and print its trace")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.worker:
        work()
        return 0
    if told.seed is not None:
        return _replay(told.seed)
    with throwaway_postgres() as admin_url:
        campaign = Campaign(admin_url, range(told.first, told.first + told.seeds), say=_say)
        report = campaign.run(told.workers)
    for line in report.lines():
        _say(line)
    return 1 if report.failures or report.never else 0


def _replay(seed: int) -> int:
    """Run one seed in this process and print everything."""
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **ENVIRONMENT})
    with throwaway_postgres() as admin_url, opened_runner(admin_url) as runner:
        try:
            outcome = runner.run(seed, digest=True)
        finally:
            if runner.world is not None:
                for line in runner.world.trace.lines():
                    _say(line)
                _say(f"\nfaults: {runner.world.swarm}")
    _say(f"seed {seed}: {len(outcome.violations)} broken promises, trace {outcome.digest}")
    for violation in outcome.violations:
        _say(violation)
    return 1 if outcome.violations else 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
