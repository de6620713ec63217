"""`make test-compose`: the Compose stack passes the end-to-end tests through its gateway, and is broken on purpose.

The stack is one of its own, beside whatever runs here, with the images of this checkout; it is removed afterwards.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from deploy.local.container import engine_answers
from deploy.local.ports import free_port
from tests.compose.stack import PROJECT

_PROJECT = "tenure-test"
_CANNOT = 2
_SUITES: Mapping[str, Sequence[str]] = {
    "the end-to-end tests, through the gateway": ("tests/e2e", "-m", "not inside"),
    "what only containers can show": ("tests/compose",),
}


def main() -> int:
    """Start a stack, test it, remove it, and return 1 where a test failed and 2 where it could not be started."""
    parser = argparse.ArgumentParser(prog="make test-compose", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the stack running")
    arguments = parser.parse_args()
    if not engine_answers():
        print("No Docker engine answers. Start one, or see what is wrong with it: docker version")
        return _CANNOT
    environment = {**os.environ, PROJECT: _PROJECT, "TENURE_PORT": str(free_port()), "TENURE_TEST_COMPOSE": "1"}
    try:
        return _test(environment)
    finally:
        if not arguments.keep:
            _done(("docker", "compose", "--profile", "*", "down", "--volumes"), environment)


def _test(environment: Mapping[str, str]) -> int:
    if not _done(("docker", "compose", "build"), environment):
        return _CANNOT
    if not _done(("docker", "compose", "up", "--detach", "--wait"), environment):
        subprocess.run(("docker", "compose", "logs", "--tail", "20"), env=environment, check=False)
        return _CANNOT
    passed = []
    for what, arguments in _SUITES.items():
        print(f"\n{what.capitalize()}:", flush=True)
        passed.append(_done((sys.executable, "-m", "pytest", *arguments), environment, is_shown=True))
    return 0 if all(passed) else 1


def _done(command: Sequence[str], environment: Mapping[str, str], *, is_shown: bool = False) -> bool:
    """Run a command, say how long it took, and tell whether it did what it should; what it says is shown if not."""
    started = time.monotonic()
    output = None if is_shown else subprocess.PIPE
    done = subprocess.run(command, env=environment, check=False, text=True, stdout=output, stderr=output)
    what = " ".join(command).replace(sys.executable, "python")
    print(f"{what}  ({time.monotonic() - started:.1f} s)", flush=True)
    if done.returncode and not is_shown:
        print(f"{done.stdout}{done.stderr}")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
