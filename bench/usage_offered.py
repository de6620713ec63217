"""Usage that is offered at a rate, whether or not metrics keeps up or lives, and what became of every event."""

import asyncio
import os
import signal
from collections.abc import Iterable, Sequence
from itertools import pairwise

from bench.metered import EVENTS, Bench
from bench.usage import Batch
from bench.usage_checks import Tally
from bench.usage_load import UsageLoad, percentile
from deploy.local.children import Child
from shared.testing import eventually

_DEATH_SECONDS = 10.0
_WARM_UP = 4


async def offer(bench: Bench, *, seconds: float, rate: float, kill: bool) -> list[str]:
    """Offer so many events a second for some seconds, and print what came of it.

    Args:
        kill: end the process with SIGKILL in the middle, while requests are with it; another one is started then.

    Returns:
        What is not as it must be.
    """
    await bench.load().send(bench.batches(_WARM_UP))
    batches, load = bench.batches(round(seconds * rate / EVENTS)), bench.load()
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(load.send(batches, rate=rate / EVENTS))
        if kill:
            await asyncio.sleep(seconds / 2)
            print(f"killed with {await _kill(bench.child, load)} requests unanswered")
    tally, wrong = Tally.of(load.told), await bench.mismatches()
    _report(load, tally, batches, seconds=sending.result())
    _line("totals that are not as in the ledger", len(wrong))
    return [*_broken(tally, batches), *wrong]


async def _kill(child: Child, load: UsageLoad) -> int:
    """Kill the process while requests are with it, and return how many."""
    await eventually(lambda: bool(load.waiting), within=_DEATH_SECONDS, describe="requests are with it")
    assert child.pid is not None
    waiting, ends = len(load.waiting), child.ends
    os.kill(child.pid, signal.SIGKILL)
    await eventually(lambda: child.ends > ends, within=_DEATH_SECONDS, describe="the process is dead")
    return waiting


def _report(load: UsageLoad, tally: Tally, batches: Sequence[Batch], *, seconds: float) -> None:
    events, answered = EVENTS * len(batches), [each.at for each in load.told]
    longest = max((later - earlier for earlier, later in pairwise(answered)), default=0.0)
    waited = [each.seconds for each in load.told]
    _line("events offered", events)
    _line("answered, per second", round(events / seconds))
    _line("seconds until all were answered", f"{seconds:.1f}")
    _line("longest without any answer, in seconds", f"{longest:.1f}")
    _line("from when a request was due, p50 in ms", f"{percentile(waited, 50):.0f}")
    _line("p99", f"{percentile(waited, 99):.0f}")
    _line("told accepted", tally.statuses["accepted"])
    _line("told duplicate", tally.statuses["duplicate"])
    _line("duplicates offered", sum(batch.repeated for batch in batches))
    _line("taken by who did not live to say so", len(tally.never_accepted))
    _line("attempts that came to nothing", ", ".join(f"{count} {why}" for why, count in load.setbacks.items()) or 0)


def _line(name: str, value: object) -> None:
    print(f"{name:<42}{value:>12}")


def _broken(tally: Tally, batches: Iterable[Batch]) -> list[str]:
    """Return which promises are broken by the answers themselves."""
    unsettled = {event.id for batch in batches for event in batch.events} - tally.settled
    refused = tally.statuses.total() - tally.statuses["accepted"] - tally.statuses["duplicate"]
    return [
        *(f"{event_id} was called accepted twice" for event_id in tally.accepted_twice),
        *(f"{event_id} was neither accepted nor a duplicate" for event_id in sorted(unsettled)),
        *([f"{refused} events were refused"] if refused else []),
    ]
