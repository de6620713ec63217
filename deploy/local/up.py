"""`python -m deploy.local.up`: all of Tenure in the foreground, until Ctrl-C."""

import argparse
import sys

from deploy.local.entry import begin


def main() -> int:
    """Run the system and return the exit code: 0 after a signal, 1 for what a person has to mend."""
    parser = argparse.ArgumentParser(prog="make up", description="Run Tenure on this machine until Ctrl-C.")
    parser.add_argument("--processes", action="store_true", help="each service as a process of its own")
    options = parser.parse_args()
    begin(interrupted=0)
    from deploy.local.installation import run_installation  # noqa: PLC0415 - takes a second; Ctrl-C may come in it

    return run_installation(processes=options.processes)


if __name__ == "__main__":
    sys.exit(main())
