"""What the documents allow, and what they do not, sent by everybody: each answer is one that its document knows."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
import pytest_asyncio

from tests.openapi.campaign import REQUESTS, Campaign
from tests.openapi.conftest import Report
from tests.openapi.premises import Premises
from tests.openapi.runs import Outcome, by_status
from tests.system import System

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(1200)]

MOST_SHOWN = 30

UNREACHED = frozenset(
    {
        *(f"POST /v1/workflows/{{workflow_id}}/{action}" for action in ("retry", "skip", "abandon")),
        "GET /oauth/callback/{tenant_id}",
        "POST /v1/driver-callbacks/{key}",
        "POST /v1/payment-webhooks/stripe",
        "POST /v1/mail-resumptions",
    }
)
"""What is for workflows that wait for a service or whose undo has failed, for browsers that were sent elsewhere, for
those who can sign, and for tenants whose mails have bounced: nothing that is sent here brings that about."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def outcomes(own_system: System, premises: Premises) -> list[Outcome]:
    """What came of everything that was sent."""
    return await Campaign(str(own_system.client.base_url).rstrip("/"), premises).carry_out()


async def test_every_answer_is_one_that_its_document_knows(outcomes: Sequence[Outcome], report: Report) -> None:
    for line in figures(outcomes):
        report(line)
    findings = [finding for outcome in outcomes for finding in outcome.findings]

    assert not findings, "\n".join([f"{len(findings)} findings:", *map(str, findings[:MOST_SHOWN])])
    assert sum(outcome.requests for outcome in outcomes) >= REQUESTS


async def test_every_operation_was_asked_for_something_that_it_does(
    premises: Premises, outcomes: Sequence[Outcome]
) -> None:
    statuses: dict[str, set[int]] = defaultdict(set)
    for outcome in outcomes:
        for operation, counts in outcome.statuses.items():
            statuses[operation].update(counts)

    assert statuses.keys() == premises.operations
    assert {operation for operation in statuses if min(statuses[operation]) >= 400} <= UNREACHED


def figures(outcomes: Sequence[Outcome]) -> list[str]:
    """Return how often each status came back, by service and by identity."""
    by_service: dict[str, list[Outcome]] = defaultdict(list)
    by_identity: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_service[outcome.service].append(outcome)
        by_identity[outcome.identity].append(outcome)
    return [
        *(figure(name, by_status(each)) for name, each in [*by_service.items(), *by_identity.items()]),
        figure("all", by_status(outcomes)),
    ]


def figure(name: str, counts: Counter[int]) -> str:
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(counts.items()))
    return f"{name}: {counts.total():,} ({statuses})"
