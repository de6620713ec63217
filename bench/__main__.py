"""``make bench``: onboardings through six real processes, beside the bare floor of the same messages and commits.

Both run on the same servers in the same run, so that what is compared is the ratio and not the machine. So do the
answers to a gateway, beside those of the smallest application there is, environments in a pool, as bridges and as
silos, beside their bare statements, and usage events, beside a bare COPY of them.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from statistics import median

import uvloop

from bench import authorize, environments, invoices, metering
from bench.backlog import peak_memory
from bench.floor_run import Floor
from bench.onboardings import System, running_system
from bench.servers import servers
from shared.logs import configure_logs

_CONNECTIONS = 64
_WARM_UP = 200


async def compare(*, count: int, lone: int, rounds: int) -> None:
    """Run the floor and the system in turn, and print both with their ratio."""
    async with servers() as stack:
        floor = await Floor.prepare(stack)
        floor_rates, floor_lone, rates, lone_seconds = [], [], [], []
        async with running_system(stack) as system:
            await system.onboard(_WARM_UP, connections=8)
            for number in range(1, rounds + 1):
                rates.append(await _round(system, count, number))
                lone_seconds += await system.onboard_one_by_one(lone)
        for number in range(1, rounds + 1):
            floor_rates.append(count / await floor.seconds(count, group=_CONNECTIONS))
            print(f"  floor   round {number}: {floor_rates[-1]:6.0f} onboardings/s")
            floor_lone += await floor.each_seconds(lone)
        _report(count, rates, floor_rates, lone_seconds, floor_lone)


async def _round(system: System, count: int, number: int) -> float:
    started = time.perf_counter()
    rate = await system.onboard(count, connections=_CONNECTIONS)
    print(f"  Tenure  round {number}: {rate:6.0f} onboardings/s  ({time.perf_counter() - started:.1f} s)")
    return rate


def _report(
    count: int, rates: Sequence[float], floor_rates: Sequence[float], lone: Sequence[float], floor_lone: Sequence[float]
) -> None:
    rate, floor_rate = median(rates), median(floor_rates)
    alone, floor_alone = 1000 * median(lone), 1000 * median(floor_lone)
    print(f"\n{'':34}{'Tenure':>12}{'bare floor':>12}{'ratio':>8}")
    print(f"{f'{count} onboardings, per second':<34}{rate:>12.0f}{floor_rate:>12.0f}{rate / floor_rate:>8.2f}")
    print(f"{'a lone onboarding, p50 in ms':<34}{alone:>12.1f}{floor_alone:>12.1f}{alone / floor_alone:>8.2f}")
    print("\nThe floor has no HTTP, contracts, retries, time-outs, undo, history or checks; see bench/floor.py.")


async def fill_up(*, messages: int) -> None:
    """Let each service start before a full queue, and print the most memory that it took until that was empty."""
    async with servers() as stack:
        print(f"\n{f'{messages} messages waiting':<34}{'peak memory':>12}{'drained in':>12}")
        for service in stack.environment:
            peak, seconds = await peak_memory(stack, service, messages=messages)
            print(f"{service:<34}{peak / 2**20:>9.0f} MB{seconds:>10.1f} s")


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="onboardings of a round; 0 leaves this out")
    parser.add_argument("--lone", type=int, default=50, help="onboardings one after the other")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=100_000, help="waiting in each queue; 0 leaves this out")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="of each measurement of /v1/authorize; 0 leaves it out"
    )
    parser.add_argument(
        "--environments", action=argparse.BooleanOptionalAction, default=True, help="make pools, bridges and silos"
    )
    parser.add_argument(
        "--metering", action=argparse.BooleanOptionalAction, default=True, help="take usage events of tenants"
    )
    parser.add_argument("--invoices", type=int, default=100_000, help="made in one run; 0 leaves this out")
    options = parser.parse_args()
    configure_logs(form="console", level="warning")
    if options.count:
        print(f"Throughput and latency on {os.cpu_count()} cores, one process per service:")
        asyncio.run(compare(count=options.count, lone=options.lone, rounds=options.rounds))
    if options.seconds:
        print("\nAnswers to gateways on one core:")
        authorize.run(seconds=options.seconds, rounds=options.rounds)
    if options.environments:
        print("\nEnvironments, one process of provisioning:")
        asyncio.run(environments.compare(rounds=options.rounds))
    if options.metering:
        print("\nUsage, one process of metrics:")
        uvloop.run(metering.run(rounds=options.rounds))
    if options.invoices:
        print(f"\n{options.invoices} invoices, one process of billing:")
        asyncio.run(invoices.compare(count=options.invoices))
    if options.messages:
        asyncio.run(fill_up(messages=options.messages))
    return 0


if __name__ == "__main__":
    sys.exit(main())
