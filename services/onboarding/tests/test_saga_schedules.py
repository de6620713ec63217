"""The saga core in 100,000 worlds: random plans, and every order of what can happen to them.

``TENURE_SCHEDULES`` says in how many. Whatever they are made of must have happened, or they prove nothing.
"""

import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from services.onboarding.tests.chance import seeded_world

SCHEDULES = int(os.environ.get("TENURE_SCHEDULES", "100000"))
WORKERS = 2
MOST_FAILURES = 3

MUST_HAPPEN = (
    "started",
    "asked",
    "succeeded",
    "refused",
    "progressed",
    "progress: waited for",
    "progress: stands still",
    "progress: late",
    "retry_scheduled",
    "timed_out",
    "failed",
    "waiting",
    "waited",
    "undo_asked",
    "undo_timed_out",
    "undone",
    "deadline_passed",
    "cancel_requested",
    "retry_requested",
    "abandon_requested",
    "skipped",
    "running",
    "compensating",
    "needs_attention",
    "completed",
    "compensated",
    "abandoned",
    "late_start",
    "late_success",
    "late_refusal",
    "late_undo",
    "ended: completed",
    "ended: compensated",
    "ended: abandoned",
    "allowed: Cancel",
    "allowed: Retry",
    "allowed: Skip",
    "allowed: Abandon",
    "forbidden: Cancel workflow_ended",
    "forbidden: Cancel already_undoing",
    "forbidden: Cancel past_point_of_no_return",
    "forbidden: Retry workflow_ended",
    "forbidden: Retry nothing_to_retry",
    "forbidden: Skip workflow_ended",
    "forbidden: Skip not_stuck",
    "forbidden: Skip not_waiting",
    "forbidden: Abandon workflow_ended",
    "forbidden: Abandon not_stuck",
)
"""Every kind of line in a history, every end, and all that operators can do or may not."""


def live_through(seeds: Sequence[int]) -> tuple[Counter[str], list[str]]:
    """Live through the worlds of some seeds; return what happened how often, and how to see what failed."""
    seen: Counter[str] = Counter()
    failures: list[str] = []
    for seed in seeds:
        world = seeded_world(seed)
        try:
            world.live()
        except Exception:  # noqa: BLE001 # a bug may raise anything, and the seed is what helps to find it
            failures.append(f"python -m services.onboarding.tests.chance {seed}\n{traceback.format_exc(limit=-3)}")
        seen += world.seen
        if len(failures) == MOST_FAILURES:
            break
    return seen, failures


@pytest.mark.timeout(0)  # as long as it takes to live through as many as are asked for
def test_every_schedule_ends_as_it_must(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    shares = [range(worker, SCHEDULES, WORKERS) for worker in range(WORKERS)]
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as workers:
        results = list(workers.map(live_through, shares))
    seen = sum((share for share, _ in results), Counter[str]())
    failures = [failure for _, some in results for failure in some]

    assert not failures, "\n".join(["replay with", *failures])
    with capsys.disabled():
        sys.stdout.write(_figures(seen, time.monotonic() - started))
    never = [kind for kind in MUST_HAPPEN if not seen[kind]]
    assert not never, f"never happened: {never}"
    assert not seen.keys() - set(MUST_HAPPEN), "what happens must be in the list"


def _figures(seen: Counter[str], seconds: float) -> str:
    ends = ", ".join(f"{seen[f'ended: {end}']:,} {end}" for end in ("completed", "compensated", "abandoned"))
    forbidden = sum(count for kind, count in seen.items() if kind.startswith("forbidden"))
    allowed = sum(count for kind, count in seen.items() if kind.startswith("allowed"))
    return (
        f"\nsaga core: {SCHEDULES:,} schedules in {seconds:.0f} s: {ends}; "
        f"{allowed:,} operators' actions allowed, {forbidden:,} forbidden\n"
    )
