"""The Dockerfile, as hadolint judges it."""

from pathlib import Path

from deploy.checks.check import ROOT, ask, program


def check_dockerfile(file: Path = ROOT / "deploy" / "Dockerfile") -> None:
    """Let hadolint read a Dockerfile.

    Raises:
        FoundError: it found what is known to be unwise.
        MissingToolError: hadolint is not installed.
    """
    ask(program("hadolint"), "--no-color", file)
