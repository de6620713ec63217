"""Has any client seen anything but an expected answer, or something after which it could ask again?"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tests.chaos.campaign.findings import Finding
from tests.chaos.campaign.journal import Journal
from tests.chaos.campaign.records import Records
from tests.rolling.visitors import Visitors

RETRYABLE = frozenset({"ConnectError", "ReadError", "WriteError", "CloseError", "RemoteProtocolError", "503"})
"""Connections that were refused or broken, and a service that says itself that it cannot: nobody had to wait long."""

_TROUBLES: Mapping[str, str] = {
    "needs_attention": "waited for an operator",
    "timed_out": "had to ask a service again after 30 s",
    "undo_timed_out": "had to ask a service again after 30 s",
}


async def check_client(journal: Journal, visitors: Visitors, records: Records) -> list[Finding]:
    """Look at what customers and visitors met, and at workflows that a restart has harmed."""
    workflows = await records.workflows()
    met = sum(visitors.setbacks.values(), Counter(journal.setbacks))
    return [
        *(_failed(f"{count} requests met {name}") for name, count in met.items() if name not in RETRYABLE),
        *(_failed(oddity) for oddity in visitors.oddities.values()),
        *(_failed(trouble) for workflow_id, each in workflows.items() for trouble in _troubles(workflow_id, each)),
    ]


def _troubles(workflow_id: str, workflow: Mapping[str, Any]) -> Iterable[str]:
    if workflow["failure"] == "timed_out":
        yield f"{workflow['kind']} {workflow_id} is {workflow['status']} because a service did not answer"
    for kind, what in _TROUBLES.items():
        if kind in workflow["kinds"]:
            yield f"{workflow['kind']} {workflow_id} {what}"


def _failed(what: str) -> Finding:
    return Finding("wrong", f"failed for the client: {what}")
