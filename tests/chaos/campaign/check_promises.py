"""Is there exactly one workflow for each promise, has it ended once, and as its customer was told?"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tests.chaos.campaign.findings import Finding
from tests.chaos.campaign.journal import Journal, Promise
from tests.chaos.campaign.records import Records

_FINAL = {"completed", "compensated", "abandoned"}
_STATUSES = _FINAL | {"started", "running", "compensating", "needs_attention"}


async def check_promises(journal: Journal, records: Records) -> list[Finding]:
    """Compare what customers were told with the workflows that there are."""
    workflows, keys = await records.workflows(), await records.keys()
    return [
        *_keys(journal, keys),
        *_unpromised(journal, workflows, dict(keys)),
        *(finding for promise in journal.promises for finding in _ending(promise, workflows.get(promise.workflow_id))),
    ]


def statuses(workflow: Mapping[str, Any]) -> list[str]:
    """Return every status that a workflow's history says that it had."""
    return [kind for kind in workflow["kinds"] if kind in _STATUSES]


def _keys(journal: Journal, keys: list[tuple[str, str]]) -> Iterable[Finding]:
    kept = dict(keys)
    for promise in journal.promises:
        if kept.get(promise.key) != promise.workflow_id:
            yield Finding("lost", f"{promise.key} was promised {promise.workflow_id}, but is {kept.get(promise.key)}")
    for refusal in journal.refusals:
        if refusal.key in kept:
            yield Finding("doubled", f"{refusal.key} was refused with {refusal.code}, but is {kept[refusal.key]}")
    for workflow_id, count in Counter(workflow_id for _, workflow_id in keys).items():
        if count > 1:
            yield Finding("doubled", f"{count} keys lead to {workflow_id}")


def _unpromised(journal: Journal, workflows: Mapping[str, Any], kept: Mapping[str, str]) -> Iterable[Finding]:
    allowed = {promise.workflow_id for promise in journal.promises}
    allowed |= {kept[key] for key in journal.unanswered if key in kept}
    for workflow_id in workflows.keys() - allowed:
        yield Finding("doubled", f"nobody was promised the workflow {workflow_id}: {dict(workflows[workflow_id])}")
    for key in journal.unanswered:
        yield Finding("stuck", f"{key} was never answered")


def _ending(promise: Promise, workflow: Mapping[str, Any] | None) -> Iterable[Finding]:
    if workflow is None:
        yield Finding("lost", f"{promise.workflow_id} was promised and is not there")
        return
    finals = [kind for kind in workflow["kinds"] if kind in _FINAL]
    if workflow["finished_at"] is None or not finals:
        yield Finding("stuck", f"{promise.lifecycle} {promise.workflow_id} is {workflow['status']}")
        return
    if len(finals) > 1:
        yield Finding("doubled", f"{promise.workflow_id} has ended as {finals}")
    if not (workflow["seq"] == workflow["last"] == workflow["entries"]):
        yield Finding("lost", f"{promise.workflow_id}: {workflow['entries']} entries of {workflow['last']}")
    if {finals[-1], workflow["status"], promise.status} != {workflow["status"]}:
        told = f"its customer was told {promise.status or 'nothing'}"
        yield Finding("wrong", f"{promise.workflow_id} is {workflow['status']}, its history says {finals[-1]}, {told}")
    if trouble := _reason_trouble(promise, workflow):
        yield Finding("wrong", f"{promise.lifecycle} {promise.workflow_id}: {trouble}")


def _reason_trouble(promise: Promise, workflow: Mapping[str, Any]) -> str:
    reason = why(promise, workflow)
    if workflow["status"] == "completed":
        return "completed although it was doomed" if promise.doomed else ""
    return f"{workflow['status']} because of {workflow['failure']}" if reason is None else ""


def why(promise: Promise, workflow: Mapping[str, Any]) -> str | None:
    """Return why a workflow had to come to nothing; None where there is no reason that is in order."""
    code = workflow["failure"]
    if code == "cancelled" and promise.cancelled:
        return "cancelled by an operator"
    if code == "unknown_region" and promise.doomed:
        return "refused by provisioning"
    if code == "timed_out":
        return "given up: a service did not answer 3 times 30 s"
    return None
