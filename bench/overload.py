"""``make overload``: ten times as much as can be done, and a queue of a million messages.

First the sustainable rate is measured: onboardings by clients that wait until there is room. Then, in turn, half as
many again are offered, which shows the peak, and ten times as many, whether or not anybody keeps up; in turn, because
the machine and the databases' own upkeep make rounds differ by a fifth. Whatever is accepted must be completed, the
rest must be told when to come back, the goodput must stay near the peak, and no process may pass its memory bound. At
last a service starts before a queue of a million messages and empties it.
"""

import argparse
import asyncio
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median

import asyncpg
import uvloop

from bench.backlog import peak_memory, peak_of
from bench.offered import Outcome
from bench.onboardings import System, running_system
from bench.servers import servers
from deploy.audit import audit
from deploy.local.stack import Stack
from shared.contracts import SERVICES
from shared.logs import configure_logs
from shared.service import MEMORY_MEGABYTES

GOODPUT = 0.85
"""How much of the peak must be left under overload."""

PEAK = 1.5
"""How many times the sustainable rate is offered to see the peak: enough that there is always work."""

_CONNECTIONS = 64
_WARM_UP = 500
_SETTLE_SECONDS = 5.0
_MEGABYTE = 2**20
_HEADING = f"{'offered':>18}{'accepted':>10}{'refused':>9}{'goodput':>11}{'202 p99':>10}{'503 p99':>10}{'done p99':>10}"
_ENDED = """
    SELECT count(*) FILTER (WHERE status = 'completed' AND finished_at >= $2 AND finished_at < $3) / $4::float8 AS rate,
           count(*) FILTER (WHERE status = 'completed') AS completed,
           extract(epoch FROM percentile_disc(0.99) WITHIN GROUP (ORDER BY finished_at - created_at))::float8 AS longest
    FROM workflow WHERE id = ANY($1::uuid[])
"""


@dataclass(frozen=True)
class Options:
    """What is asked for.

    Attributes:
        count: onboardings of a round of the sustainable rate.
        times: how many times the sustainable rate is an overload.
        rounds: how often each load is offered.
        seconds: how long.
        backlog: who starts before a full queue; nobody where ``messages`` is 0.
    """

    count: int
    times: float
    rounds: int
    seconds: float
    backlog: Sequence[str]
    messages: int


@dataclass(frozen=True)
class Result:
    """What came of one offered load.

    Attributes:
        goodput: onboardings completed a second, while the load was offered and after it had settled.
        completed: how many of those that were accepted.
        longest: seconds from accepted to completed, of which only one in a hundred takes more.
    """

    times: float
    outcome: Outcome
    goodput: float
    completed: int
    longest: float


async def run(options: Options) -> list[str]:
    """Measure everything, print it, and return what is not as it must be."""
    async with servers() as stack:
        failures = await _overload(stack, options)
    if options.messages:
        async with servers() as stack:
            failures += await _backlog(stack, options)
    return failures


async def _overload(stack: Stack, options: Options) -> list[str]:
    async with running_system(stack) as system:
        await system.onboard(_WARM_UP, connections=8)
        sustainable = await system.onboard(options.count, connections=_CONNECTIONS)
        print(f"\nsustainable: {sustainable:.0f} onboardings/s\n\n{_HEADING}")
        loads = [PEAK, options.times] * options.rounds
        results = [await _offer(stack, system, times, sustainable, options.seconds) for times in loads]
        memory = {name: peak_of(child) // _MEGABYTE for name, child in system.children.items()}
        ended = [f"{name} ended {child.ends} times" for name, child in system.children.items() if child.ends]
        residue = (await audit(stack.audited)).findings
    print(f"\nmost memory: {', '.join(f'{name} {peak} MB' for name, peak in memory.items())}")
    print(f"residue audit: {len(residue)} findings")
    too_much = [f"{name} took {peak} MB" for name, peak in memory.items() if peak > MEMORY_MEGABYTES]
    failures = [failure for result in results for failure in _failures(result)]
    return [*_compared(results[0::2], results[1::2]), *failures, *too_much, *ended, *map(str, residue)]


def _compared(peaks: Sequence[Result], overloads: Sequence[Result]) -> list[str]:
    """Print how much of the peak is left under overload, and return a failure where that is too little."""
    peak, left = (median(result.goodput for result in results) for results in (peaks, overloads))
    print(f"\ngoodput: {left:.0f} onboardings/s under overload, {peak:.0f} at the peak: {left / peak:.0%} (medians)")
    return [] if left >= GOODPUT * peak else [f"goodput under overload was {left / peak:.0%}, not {GOODPUT:.0%}"]


async def _offer(stack: Stack, system: System, times: float, sustainable: float, seconds: float) -> Result:
    rate = times * sustainable
    started = datetime.now(UTC)
    outcome = await system.offer(rate=rate, seconds=seconds)
    result = await _result(stack, times, outcome, started, seconds)
    print(
        f"{f'{times:g} x = {rate:.0f}/s':>18}{len(outcome.accepted):>10}{outcome.refused.total():>9}"
        f"{f'{result.goodput:.0f}/s':>11}{_p99(outcome.accepted_seconds):>10}"
        f"{_p99(outcome.refused_seconds):>10}{f'{result.longest:.1f} s':>10}",
        flush=True,
    )
    return result


async def _result(stack: Stack, times: float, outcome: Outcome, started: datetime, seconds: float) -> Result:
    since, until = started + timedelta(seconds=_SETTLE_SECONDS), started + timedelta(seconds=seconds)
    connection = await asyncpg.connect(stack.databases["onboarding"].app)
    try:
        (row,) = await connection.fetch(_ENDED, outcome.accepted, since, until, seconds - _SETTLE_SECONDS)
    finally:
        await connection.close()
    return Result(times, outcome, row["rate"], row["completed"], row["longest"] or math.nan)


def _failures(result: Result) -> Iterator[str]:
    outcome, load = result.outcome, f"at {result.times:g} times the sustainable rate"
    if lost := len(outcome.accepted) - result.completed:
        yield f"{load}, {lost} of {len(outcome.accepted)} that were accepted did not complete"
    if wrong := outcome.refused.total() - outcome.refused[429] - outcome.refused[503]:
        yield f"{load}, {wrong} were refused with neither 429 nor 503: {dict(outcome.refused)}"
    if outcome.without_retry_after:
        yield f"{load}, {outcome.without_retry_after} refusals did not say when to come back"
    if result.times > 1 and not outcome.refused:
        yield f"{load}, nobody was refused, so that was no overload"


async def _backlog(stack: Stack, options: Options) -> list[str]:
    print(f"\n{f'{options.messages} messages waiting':<34}{'drained in':>12}{'a second':>10}{'memory':>10}")
    failures = []
    for service in options.backlog:
        peak, seconds = await peak_memory(stack, service, messages=options.messages)
        rate = options.messages / seconds
        print(f"{service:<34}{seconds:>10.0f} s{rate:>10.0f}{peak // _MEGABYTE:>7} MB", flush=True)
        if peak > MEMORY_MEGABYTES * _MEGABYTE:
            failures.append(f"{service} took {peak // _MEGABYTE} MB to empty its queue")
    return failures


def _p99(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    return f"{1000 * sorted(seconds)[int(0.99 * len(seconds))]:.0f} ms"


def main() -> int:
    """Read the command line, run, and return 1 where something was not as it must be."""
    parser = argparse.ArgumentParser(prog="make overload", description=__doc__)
    parser.add_argument("--count", type=int, default=3000, help="onboardings of a round of the sustainable rate")
    parser.add_argument("--times", type=float, default=10.0, help="how many times the sustainable rate is an overload")
    parser.add_argument("--rounds", type=int, default=3, help="how often each load is offered")
    parser.add_argument("--seconds", type=float, default=25.0, help="how long; more than 10")
    parser.add_argument("--messages", type=int, default=1_000_000, help="waiting in a queue; 0 leaves this out")
    parser.add_argument("--backlog", choices=SERVICES, nargs="+", default=["billing"], help="who starts before it")
    given = parser.parse_args()
    configure_logs(form="console", level="error")
    print(f"Overload on {os.cpu_count()} cores, one process per service and one for the load:")
    started = time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        failures = runner.run(run(Options(**vars(given))))
    for failure in failures:
        print(f"FAILED: {failure}")
    print(f"\n{'FAILED' if failures else 'All is as it must be'} after {time.monotonic() - started:.0f} s.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
