"""`python -m deploy.local.demo`: onboards the tenants of ``examples/tenants.json`` before your eyes and checks them."""

import sys

from deploy.local.entry import begin

_INTERRUPTED = 130  # what a shell says of a command that Ctrl-C ended


def main() -> int:
    """Show it and return the exit code: 0 only if every onboarding ended as it should and nothing was left over."""
    begin(_INTERRUPTED)
    from deploy.local.demonstration import run_demonstration  # noqa: PLC0415 - takes a second; Ctrl-C may come in it

    return run_demonstration(interrupted=_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
