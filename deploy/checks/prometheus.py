"""What Prometheus is told: its configuration, the alert rules and the rules' own tests, as promtool reads them."""

from pathlib import Path

from deploy.checks.check import ROOT, ask, program

_FOLDER = ROOT / "deploy" / "observability" / "prometheus"


def check_prometheus(folder: Path = _FOLDER) -> None:
    """Let promtool read the configuration and the rules, and run the rules' tests.

    Raises:
        FoundError: it found fault.
        MissingToolError: promtool is not installed and cannot be.
    """
    promtool = program("promtool", package="prometheus")
    ask(promtool, "check", "config", "--syntax-only", folder / "prometheus.yml")
    ask(promtool, "check", "rules", folder / "rules.yml")
    ask(promtool, "test", "rules", folder / "rules.test.yml")
