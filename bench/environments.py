"""Environments per second as provisioning makes them, beside the bare cost of the same statements.

Tenure: from the first ask in the service's queue to the last environment that is ready: messages, inbox, barrier, jobs,
claims, the driver, the answers. Bare: see `bench.bare_environments`. Both in turn on the same server.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from uuid import UUID

from bench import bare_environments as bare
from bench.onboardings import until_ready
from bench.servers import servers
from deploy.local.children import running_children
from deploy.local.stack import Stack
from services.provisioning.drivers.postgres.names import Names
from shared.contracts.provisioning import DeprovisionEnvironment, ProvisionEnvironment
from shared.ids import TimeOrderedIds
from shared.messaging.bus import Bus, Outcome, Parcel
from shared.messaging.event import BATCH, Event, join_batch
from shared.messaging.rabbitmq import RabbitBus
from shared.messaging.topology import exchange_of
from shared.postgres import Pool, open_pool

COUNTS: Mapping[str, int] = {"pool": 4000, "bridge": 400, "silo": 40}
"""How many of each are made in a round."""

_AT_ONCE = {"silo": 4}
_POLL_SECONDS = 0.02
_LONGEST_SECONDS = 600.0
_IDS = TimeOrderedIds()


@dataclass(frozen=True)
class Bench:
    """A running provisioning service, and what it works on."""

    own: Pool
    application: Pool
    url: str
    bus: Bus

    async def rates(self, isolation: str, count: int, number: int) -> tuple[float, float]:
        """Make so many environments of one isolation in a round; return how many a second, Tenure's and bare."""
        tenants = [f"{isolation}-{number}-{index}" for index in range(count)]
        workflows = [_IDS.new() for _ in tenants]
        started = time.perf_counter()
        await self._say([ProvisionEnvironment(tenant_id=each, isolation=isolation) for each in tenants], workflows)
        await self._until("status = 'ready'", count)
        rate = count / (time.perf_counter() - started)
        await self._say([DeprovisionEnvironment(tenant_id=each) for each in tenants], workflows)
        await self._until("true", 0)
        return rate, count / await self._bare_seconds(isolation, number, count)

    async def _bare_seconds(self, isolation: str, number: int, count: int) -> float:
        if isolation == "silo":
            prefix = Names(self.url.rpartition("/")[2]).template[:40]
            names = [f"{prefix}_bare_{number}_{index}" for index in range(count)]
            return await bare.silo_seconds(self.application, names, at_once=_AT_ONCE["silo"])
        tenants = [f"bare-{isolation}-{number}-{index}" for index in range(count)]
        seconds = await bare.pool_seconds(self.own, self.application, self.url, tenants, isolation=isolation)
        await self._say([DeprovisionEnvironment(tenant_id=each) for each in tenants], [_IDS.new() for _ in tenants])
        await self._until("true", 0)
        return seconds

    async def _say(
        self, asks: Sequence[ProvisionEnvironment | DeprovisionEnvironment], workflows: Sequence[UUID]
    ) -> None:
        now = datetime.now(UTC)
        events = [
            Event(_IDS.new(), "onboarding", now, ask, workflow_id=workflow_id, step="bench")
            for ask, workflow_id in zip(asks, workflows, strict=True)
        ]
        parts = [events[start : start + bare.TOGETHER] for start in range(0, len(events), bare.TOGETHER)]
        outcomes = await self.bus.publish([_parcel(part) for part in parts])
        if set(outcomes) != {Outcome.CONFIRMED}:
            raise RuntimeError("the broker did not take all asks")

    async def _until(self, condition: str, count: int) -> None:
        async with asyncio.timeout(_LONGEST_SECONDS):
            query = f"SELECT count(*) FROM environment WHERE {condition}"  # noqa: S608 - a condition of our own
            while await self.own.fetchval(query) != count:  # noqa: ASYNC110 - it changes in another process
                await asyncio.sleep(_POLL_SECONDS)


def _parcel(events: Sequence[Event]) -> Parcel:
    body = join_batch(event.encode() for event in events)
    return Parcel(exchange_of("onboarding"), events[0].type, body, BATCH, str(events[0].id))


@asynccontextmanager
async def opened_bench(stack: Stack) -> AsyncIterator[Bench]:
    """Run the service, and open what a measurement needs."""
    url = stack.environment["provisioning"]["TENURE_APPLICATION_DATABASE_URL"]
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as folder:
        environment = {"provisioning": stack.environment["provisioning"]}
        async with running_children(environment, Path(folder), print) as (child,):
            await until_ready(child.port)
            own = await open_pool(stack.databases["provisioning"].app)
            application = await open_pool(url)
            bus = RabbitBus(stack.environment["onboarding"]["TENURE_ONBOARDING_AMQP_URL"], name="bench")
            try:
                yield Bench(own, application, url, bus)
            finally:
                await bus.close()
                await application.close()
                await own.close()


async def compare(*, rounds: int, counts: Mapping[str, int] = COUNTS) -> None:
    """Measure every isolation in turn with its floor, and print both with their ratio.

    Args:
        rounds: of which the medians are printed.
        counts: how many of each isolation are made in a round.
    """
    async with servers() as stack, opened_bench(stack) as bench:
        print(f"\n{'environments, per second':<34}{'Tenure':>12}{'bare':>12}{'bare/Tenure':>14}")
        for isolation, count in counts.items():
            pairs = [await bench.rates(isolation, count, number) for number in range(rounds)]
            rate, floor = median(rate for rate, _ in pairs), median(floor for _, floor in pairs)
            print(
                f"{f'{isolation} ({count} at a time)':<34}{rate:>12.1f}{floor:>12.1f}{floor / rate:>14.2f}", flush=True
            )
