"""A check by somebody else's tool, and how it ended."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from deploy.local.packages import InstallationError, can_install, install

ROOT = Path(__file__).resolve().parents[2]

_BIN = Path(sys.executable).parent
_SBIN = Path("/usr/sbin")  # which is not on everybody's path
_SECONDS = 120.0


class Verdict(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class FoundError(Exception):
    """The tool found fault; the message is what it said."""


class MissingToolError(Exception):
    """The tool cannot be had, which is an error in CI; the message says what to do."""


class UnreachedError(Exception):
    """What the tool asks cannot be reached, which is nobody's fault."""


@dataclass(frozen=True)
class Check:
    """A check by somebody else's tool.

    Attributes:
        name: what is checked, and by what.
        run: raises `FoundError`, `MissingToolError` or `UnreachedError`.
    """

    name: str
    run: Callable[[], None]


@dataclass(frozen=True)
class Outcome:
    """How a check ended.

    Attributes:
        name: of the check.
        verdict: of the tool.
        seconds: that it took.
        words: of the tool where it found fault, or why it was not asked.
    """

    name: str
    verdict: Verdict
    seconds: float
    words: str = ""


def outcome_of(check: Check) -> Outcome:
    """Run a check and return how it ended; it fails where ``CI`` is set and the tool cannot be had."""
    began = time.monotonic()
    verdict, words = Verdict.PASSED, ""
    try:
        check.run()
    except FoundError as error:
        verdict, words = Verdict.FAILED, str(error)
    except UnreachedError as error:
        verdict, words = Verdict.SKIPPED, str(error)
    except MissingToolError as error:
        verdict, words = Verdict.FAILED if os.environ.get("CI") else Verdict.SKIPPED, str(error)
    return Outcome(check.name, verdict, time.monotonic() - began, words)


def program(name: str, *, package: str | None = None) -> Path:
    """Return a program of the locked tools or of this machine, installing Debian's package if we are root.

    Raises:
        MissingToolError: there is none.
    """
    if found := _installed(name):
        return found
    if package is None:
        raise MissingToolError(f"{name} is one of the locked tools and not installed: remove .venv/.installed")
    reason = f"{name} is not installed: sudo apt-get install --no-install-recommends {package}"
    if can_install():
        try:
            install(package)
        except InstallationError as error:
            reason = str(error)
        if found := _installed(name):
            return found
    raise MissingToolError(reason)


def ask(*command: str | Path) -> None:
    """Run a tool in the root of the repository.

    Raises:
        FoundError: it ended with anything but 0, or not within two minutes.
    """
    try:
        outcome = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise FoundError(f"{command[0]} took more than {_SECONDS:.0f} s") from None
    if outcome.returncode != 0:
        raise FoundError(f"{outcome.stdout}{outcome.stderr}".strip())


def _installed(name: str) -> Path | None:
    for folder in (_BIN, _SBIN):
        if (folder / name).exists():
            return folder / name
    found = shutil.which(name)
    return Path(found) if found else None
