"""The Compose file, as Compose itself reads it, without an engine."""

from pathlib import Path

from deploy.checks.check import ROOT, ask, program


def check_compose(file: Path = ROOT / "docker-compose.yml") -> None:
    """Let Compose read a file with every profile on.

    Raises:
        FoundError: it did not understand it.
        MissingToolError: Compose is not installed.
    """
    ask(program("docker-compose"), "--file", file, "--profile", "*", "config", "--quiet")
