"""Usage events a second as metrics takes them, beside a bare COPY of the same events.

Tenure: one process of metrics; some connections post batches, each the next one when the last was answered. What is
answered is durable and added up. Bare: see `bench.bare_usage`. Both in turn on the same server.

    python -m bench.metering --seconds 60 --rate 10000 --kill

offers events at a rate instead, whether or not anybody keeps up, kills the process with SIGKILL in the middle if it is
asked to, and compares what each tenant has used of each meter, by hour and by month, with its own ledger.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median
from typing import NamedTuple

import uvloop

from bench import bare_usage
from bench.metered import CONNECTIONS, EVENTS, Bench, opened_bench
from bench.processor import processor_seconds
from bench.servers import servers
from bench.usage_load import percentile
from bench.usage_offered import offer
from shared.logs import configure_logs

_WARM_UP = 4
_SHOWN = 10


class Round(NamedTuple):
    """What was measured in one round.

    Attributes:
        rate: events taken a second.
        floor: events copied a second.
        cost: of the service's processor, in seconds for each event.
        waited: the seconds of each request.
    """

    rate: float
    floor: float
    cost: float
    waited: Sequence[float]


async def run(*, rounds: int) -> None:
    """Measure and print, on servers of its own."""
    async with servers() as stack, opened_bench(stack) as bench:
        await compare(bench, rounds=rounds)


async def compare(bench: Bench, *, rounds: int, count: int = 100) -> None:
    """Measure the service and the floor in turn, and print both with their ratio.

    Args:
        rounds: of which the medians are printed.
        count: requests of a round.

    Raises:
        RuntimeError: what tenants have used is not what was told.
    """
    await bare_usage.prepare(bench.own, now=datetime.now(UTC))
    await bench.load().send(bench.batches(_WARM_UP))
    _report([await _round(bench, count) for _ in range(rounds)])
    if wrong := await bench.mismatches():
        raise RuntimeError("\n".join(wrong[:_SHOWN]))


async def _round(bench: Bench, count: int) -> Round:
    batches, load, events, pid = bench.batches(count), bench.load(), EVENTS * count, bench.child.pid
    assert pid is not None
    copies, before = bare_usage.copies(batches), processor_seconds(pid)
    seconds = await load.send(batches)
    cost = (processor_seconds(pid) - before) / events
    floor = events / await bare_usage.seconds(bench.database, copies)
    return Round(events / seconds, floor, cost, [each.seconds for each in load.told])


def _report(rounds: Sequence[Round]) -> None:
    rate, floor = median(each.rate for each in rounds), median(each.floor for each in rounds)
    waited = [seconds for each in rounds for seconds in each.waited]
    print(f"\n{'':40}{'Tenure':>12}{'bare COPY':>12}{'bare/Tenure':>14}")
    print(f"{'usage events, per second':<40}{rate:>12.0f}{floor:>12.0f}{floor / rate:>14.2f}")
    print(f"{'µs of the process for each, of one core':<40}{1e6 * median(each.cost for each in rounds):>12.0f}")
    print(f"{f'a request of {EVENTS}, p50 in ms':<40}{percentile(waited, 50):>12.0f}")
    print(f"{f'a request of {EVENTS}, p99 in ms':<40}{percentile(waited, 99):>12.0f}")
    print(f"\n{CONNECTIONS} connections. One event in five was told before: COPY is spared it, and it counts.")


async def _offer(seconds: float, rate: float, *, kill: bool) -> list[str]:
    async with servers() as stack, opened_bench(stack) as bench:
        return await offer(bench, seconds=seconds, rate=rate, kill=kill)


def main() -> int:
    """Read the command line, run, and return 1 where something was not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m bench.metering", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long events are offered")
    parser.add_argument("--rate", type=float, default=10_000.0, help="events a second")
    parser.add_argument("--kill", action="store_true", help="kill the process in the middle")
    options = parser.parse_args()
    configure_logs(form="console", level="error")
    print(f"Usage on {os.cpu_count()} cores, one process of metrics and one for the load:")
    started = time.monotonic()
    failures = uvloop.run(_offer(options.seconds, options.rate, kill=options.kill))
    for failure in failures[:_SHOWN]:
        print(f"FAILED: {failure}")
    print(f"\n{'FAILED' if failures else 'All is as it must be'} after {time.monotonic() - started:.0f} s.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
