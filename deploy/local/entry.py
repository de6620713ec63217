"""What a command does before anything else, in words that an old Python understands too."""

import signal
import sys

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, what ends a process politely, and a terminal that is closed."""

OLDEST_PYTHON = (3, 11)
"""What the code is written in."""


def begin(interrupted: int) -> None:
    """Refuse an old Python, and let Ctrl-C be no traceback while the command itself is still being imported.

    Args:
        interrupted: the exit code after a signal, while there is nothing to stop yet.
    """
    if sys.version_info[:2] < OLDEST_PYTHON:
        version = ".".join(map(str, sys.version_info[:3]))
        wanted = ".".join(map(str, OLDEST_PYTHON))
        sys.exit(
            f"Tenure needs Python {wanted} or newer, and {sys.executable} is {version}.\n"
            f"Remove .venv and name a newer one: make PYTHON=python{wanted} up"
        )

    def leave(_number: int, _frame: object) -> None:
        ignore_signals()
        sys.exit(interrupted)

    for number in ENDING:
        signal.signal(number, leave)


def ignore_signals() -> None:
    """Let a second Ctrl-C not disturb an interpreter that is about to end."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
