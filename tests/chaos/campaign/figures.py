"""The figures of a run: what was promised and what became of it, and how long things took after each kind of fault."""

import os
import platform
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from tests.chaos.campaign.check_promises import why
from tests.chaos.campaign.findings import MEANINGS, Finding
from tests.chaos.campaign.journal import Journal
from tests.chaos.campaign.records import Records
from tests.chaos.campaign.strikes import Strike


@dataclass(frozen=True)
class Recovery:
    """How one kind of fault went."""

    kind: str
    times: int
    median: float
    longest: float
    workflow: float


async def recoveries(strikes: Sequence[Strike], records: Records) -> list[Recovery]:
    """Return the figures of each kind of fault, by name."""
    kinds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    since = datetime.min.replace(tzinfo=UTC)
    for strike in strikes:
        longest = await records.longest_met(since=since, struck_at=strike.struck_at, healed_at=strike.healed_at)
        since = strike.healed_at
        kinds[strike.kind].append((float("inf") if strike.recovery is None else strike.recovery, longest))
    return [
        Recovery(
            kind,
            len(figures),
            median(recovery for recovery, _ in figures),
            max(recovery for recovery, _ in figures),
            max(longest for _, longest in figures),
        )
        for kind, figures in sorted(kinds.items())
    ]


def table(figures: Sequence[Recovery]) -> Iterator[str]:
    """Yield the lines of a table, in Markdown."""
    yield "| fault | times | until an onboarding completed, median | longest | longest workflow |"
    yield "|---|---:|---:|---:|---:|"
    for each in figures:
        workflow = f"{each.workflow:.1f} s" if each.workflow else "none met it"
        seconds = f"{each.median:.1f} s | {each.longest:.1f} s | {workflow}"
        yield f"| {each.kind} | {each.times} | {seconds} |"


async def counters(journal: Journal, records: Records, findings: Sequence[Finding]) -> list[str]:
    """Return the lines with which a campaign ends."""
    workflows = await records.workflows()
    promised = Counter(promise.lifecycle for promise in journal.promises)
    ended = Counter(promise.status for promise in journal.promises)
    reasons = Counter(
        why(promise, workflows[promise.workflow_id]) or "for no reason that is in order"
        for promise in journal.promises
        if promise.status == "compensated" and promise.workflow_id in workflows
    )
    kinds = Counter(kind for workflow in workflows.values() for kind in workflow["kinds"])
    refused = Counter(refusal.code for refusal in journal.refusals)
    found = Counter(finding.meaning for finding in findings)
    return [
        f"promised     {promised.total():6}  {_listed(promised)}",
        f"completed    {ended['completed']:6}",
        f"compensated  {ended['compensated']:6}  {_listed(reasons)}",
        f"abandoned    {ended['abandoned']:6}  no operator here abandons; {kinds['needs_attention']} needed attention",
        f"asked again  {kinds['timed_out'] + kinds['undo_timed_out']:6}  steps had no answer within 30 s",
        f"refused      {refused.total():6}  {_listed(refused)}",
        f"setbacks     {journal.setbacks.total():6}  asked once more under the same key: {_listed(journal.setbacks)}",
        *(f"{meaning:<16}{found[meaning]:3}" for meaning in MEANINGS),
    ]


def conditions(seed: int, rate: float) -> str:
    """Return what the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{os.cpu_count()} cores, {memory:.0f} GB, {platform.system()} {platform.release()}"
    return f"commit {_commit()}, seed {seed}, {rate:g} orders/s, {machine}, Python {platform.python_version()}"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=9"]
    outcome = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[3]
    )
    return outcome.stdout.strip() or "unknown"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
