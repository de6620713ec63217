"""What must happen now and then, or the simulations prove nothing: a campaign in which one of these never did fails."""

from collections import Counter
from uuid import UUID

from tests.simulation.clock import START
from tests.simulation.invariants import Evidence, undoes

SOMETIMES = (
    "duplicate delivered",
    "undo before do",
    "crash between commit and publish",
    "crash between publish and confirm",
    "confirm lost but arrived",
    "commit raised but happened",
    "commit raised and absent",
    "compensation",
    "failure during compensation",
    "relay sent by the sweeper",
    "batch split",
    "idempotent replay answered",
    "crash while another was down",
    "clock off",
    "message retried on the ladder",
    "service restarted in order",
    "step given up without an answer",
    "product's environment removed",
    "change of products taken back",
    "nothing wrong at all",
)


def happened(evidence: Evidence, logged: Counter[str]) -> frozenset[str]:
    """Return which of them happened in one simulation.

    Args:
        logged: what services have logged, by action.
    """
    counts = evidence.world.counts
    compensating = {row["id"] for row in evidence.workflows if row["status"] in {"compensated", "needs_attention"}}
    found = {
        "duplicate delivered": counts["duplicate delivered"],
        "undo before do": _undone_first(evidence),
        "crash between commit and publish": counts["crash at after_commit"] + counts["crash at before_publish"],
        "crash between publish and confirm": counts["crash before confirm"] + counts["crash at confirmed"],
        "confirm lost but arrived": counts["parcel arrived, confirm lost"],
        "commit raised but happened": counts["commit happened but raised"],
        "commit raised and absent": counts["commit absent and raised"],
        "compensation": len(compensating),
        "failure during compensation": _failures_while_undoing(evidence),
        "relay sent by the sweeper": logged["outbox_swept"],
        "batch split": logged["batch_split"],
        "idempotent replay answered": sum(
            answer.replayed for order in evidence.world.journal.orders for answer in order.answers
        ),
        "crash while another was down": counts["crash while another was down"],
        "clock off": counts["clock off"],
        "message retried on the ladder": logged["message_retried"],
        "service restarted in order": counts["service restarted"],
        "step given up without an answer": sum(
            entry["kind"] == "failed" and entry["detail"].get("code") == "timed_out"
            for entries in evidence.history.values()
            for entry in entries
        ),
        "product's environment removed": sum(
            bool(step["result"] and step["result"]["deleted"]["environments"])
            for steps in evidence.steps.values()
            for name, step in steps.items()
            if name == "remove-products"
        ),
        "change of products taken back": sum(
            steps.get("change-licences", {}).get("status") == "undone" for steps in evidence.steps.values()
        ),
        "nothing wrong at all": not evidence.world.faults.moments,
    }
    assert tuple(found) == SOMETIMES
    return frozenset(name for name, times in found.items() if times)


def _undone_first(evidence: Evidence) -> int:
    """Count the steps whose undo took effect where their ask came later or had no effect."""
    seen: set[tuple[UUID | None, str | None]] = set()
    count = 0
    for effect in evidence.world.effects:
        key = (effect.workflow_id, effect.step)
        if effect.service != "onboarding" and effect.step is not None:
            count += undoes(effect.type) and key not in seen
            seen.add(key)
    return count


def _failures_while_undoing(evidence: Evidence) -> int:
    """Count the faults that struck while a workflow was compensating; a clock that jumps meanwhile blurs it."""
    ahead = evidence.world.clocks["onboarding"].ahead
    count = 0
    for entries in evidence.history.values():
        moments = {entry["kind"]: (entry["at"] - START - ahead).total_seconds() for entry in entries}
        if {"compensating", "compensated"} <= moments.keys():
            began, ended = moments["compensating"], moments["compensated"]
            count += sum(began < moment < ended for moment in evidence.world.faults.moments)
    return count
