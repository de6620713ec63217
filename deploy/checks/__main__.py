"""`python -m deploy.checks`: let other people's tools judge what deploys Tenure, and tell what each said."""

import sys
from collections.abc import Sequence

from deploy.checks.check import Check, Outcome, Verdict, outcome_of
from deploy.checks.compose import check_compose
from deploy.checks.dockerfile import check_dockerfile
from deploy.checks.gateway import check_gateway
from deploy.checks.prometheus import check_prometheus
from deploy.checks.vulnerabilities import check_vulnerabilities

CHECKS = (
    Check("docker-compose.yml (docker compose config)", check_compose),
    Check("deploy/Dockerfile (hadolint)", check_dockerfile),
    Check("the gateway's configuration (nginx -t)", check_gateway),
    Check("Prometheus' configuration and rules (promtool)", check_prometheus),
    Check("known weaknesses of what is locked (pip-audit)", check_vulnerabilities),
)
"""Every check, one after the other: two that install their tool would want one lock of Debian's."""


def main(checks: Sequence[Check] = CHECKS) -> int:
    """Run the checks and return the exit code: 1 if any failed."""
    verdicts = set()
    for check in checks:
        outcome = outcome_of(check)
        print(_line(outcome), flush=True)
        verdicts.add(outcome.verdict)
    return 1 if Verdict.FAILED in verdicts else 0


def _line(outcome: Outcome) -> str:
    head = f"{outcome.verdict:8}{outcome.seconds:5.1f} s  {outcome.name}"
    return f"{head}: {outcome.words}" if outcome.words else head


if __name__ == "__main__":
    sys.exit(main())
