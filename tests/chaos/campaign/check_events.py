"""Was everybody outside told all of it, once, and in an order that is possible?"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from tests.chaos.campaign.check_promises import statuses
from tests.chaos.campaign.findings import Finding
from tests.chaos.campaign.records import Records
from tests.chaos.watcher import Watcher

_NEXT: Mapping[str, set[str]] = {
    "started": {"compensating", "needs_attention", "completed"},
    "running": {"compensating", "needs_attention", "completed"},
    "compensating": {"needs_attention", "compensated"},
    "needs_attention": {"running", "compensating", "completed", "compensated", "abandoned"},
    "completed": set(),
    "compensated": set(),
    "abandoned": set(),
}
"""What may follow each status."""


async def check_events(watcher: Watcher, records: Records) -> list[Finding]:
    """Compare the status events that a subscriber outside has heard with the history of each workflow."""
    workflows = await records.workflows()
    findings = [
        finding
        for workflow_id, workflow in workflows.items()
        for finding in _path(workflow_id, watcher.path(workflow_id), workflow)
    ]
    strangers = watcher.workflows - workflows.keys()
    return findings + [Finding("doubled", f"a status was told of {each}, which is not there") for each in strangers]


def _path(workflow_id: str, told: list[str], workflow: Mapping[str, Any]) -> Iterable[Finding]:
    happened = statuses(workflow)
    if len(told) < len(happened):
        yield Finding("lost", f"{workflow_id}: outside only {told} was told of {happened}")
    elif len(told) > len(happened):
        yield Finding("doubled", f"{workflow_id}: outside {told} was told of {happened}")
    elif told != happened:
        yield Finding("wrong", f"{workflow_id}: outside {told} was told of {happened}")
    if told[:1] != ["started"] or any(after not in _NEXT[before] for before, after in pairwise(told)):
        yield Finding("wrong", f"{workflow_id}: no workflow goes {told}")
