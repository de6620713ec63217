"""Every message delivered twice and in shuffled order: the same end as without."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from deploy.databases import APPLICATION, DatabasePasswords, create_databases
from deploy.local.stack import Stack
from deploy.logins import ENCRYPTION_KEYS
from services.onboarding.definition import STEP_TIMEOUT_SECONDS
from shared.clock import SystemClock
from shared.contracts import SERVICES
from shared.messaging.topology import Manifest, parking_queue_of, work_queue_of
from shared.postgres import Connection, migrate, service_migrations
from shared.testing import eventually
from shared.testing.memory_bus import MemoryBroker, MemoryBus
from tests.disturbance import Disturbance, DisturbedBus, Traffic
from tests.intruder import broker_login, channel_of
from tests.snapshot import quiet_snapshot
from tests.system import System, Workflow, running_system

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("own_servers")]

SEEDS = (1, 2, 3)
LATEST = 0.4
"""Seconds that a copy may be late; an undisturbed onboarding takes a tenth of that."""

CUSTOMERS: Mapping[str, Mapping[str, Any]] = {
    **{f"completes {number}": {"tier": "standard"} for number in range(8)},
    **{f"has no region {number}": {"region": "mars"} for number in range(4)},
    **{f"has no currency {number}": {"currency": "JPY"} for number in range(4)},
}
"""Whom each run onboards, and what they ask for: half of them cannot be completed."""


@dataclass(frozen=True)
class Ending:
    """What has become of one customer, as far as it must not depend on deliveries.

    Attributes:
        held: how many records of it there are, by database and place.
        shown: what the services say of it.
        repeated: what its history tells more than once.
    """

    status: str
    failure: tuple[str, str] | None
    steps: Mapping[str, str]
    held: Mapping[tuple[str, str], int]
    shown: Mapping[str, Any]
    repeated: tuple[tuple[str, str], ...]


async def run(system: System, label: str) -> Mapping[str, Workflow]:
    """Onboard all customers at once, under names of this run, and wait until nothing more is to happen to them."""

    async def one(customer: str) -> Workflow:
        workflow = await system.finished(await system.onboard(f"{customer}, {label}", **CUSTOMERS[customer]))
        if workflow["status"] == "completed":  # billing hears of the activation by itself, maybe later
            await eventually(lambda: _is_charged(system, workflow), describe=f"{customer} charged")
        return workflow

    return dict(zip(CUSTOMERS, await asyncio.gather(*map(one, CUSTOMERS)), strict=True))


async def _is_charged(system: System, workflow: Workflow) -> bool:
    subscriptions = await system.items("/v1/subscriptions", tenantId=workflow["tenantId"])
    return [each["status"] for each in subscriptions] == ["active"]


async def endings(system: System, workflows: Mapping[str, Workflow]) -> Mapping[str, Ending]:
    held = {name: await _held(url, name) for name, url in system.audited.items()}

    async def ending(workflow: Workflow) -> Ending:
        tenant_id, failure = workflow["tenantId"], workflow["failure"]
        told = Counter((entry["kind"], entry["step"]) for entry in await system.history(workflow))
        return Ending(
            status=workflow["status"],
            failure=(failure["step"], failure["code"]) if failure else None,
            steps={step["name"]: step["status"] for step in workflow["steps"]},
            held={(name, place): of[tenant_id, place] for name, of in held.items() for _, place in _of(of, tenant_id)},
            shown=await _shown(system, workflow),
            repeated=tuple(entry for entry, count in told.items() if count > 1),
        )

    return {customer: await ending(workflow) for customer, workflow in workflows.items()}


async def _held(url: str, database: str) -> Counter[tuple[str, str]]:
    connection: Connection = await asyncpg.connect(url)
    try:
        view = "tenancy.live_record" if database == APPLICATION else "live_record"
        return Counter([(row["tenant_id"], row["place"]) for row in await connection.fetch(f"SELECT * FROM {view}")])
    finally:
        await connection.close()


def _of(held: Counter[tuple[str, str]], tenant_id: str) -> list[tuple[str, str]]:
    return [(tenant, place) for tenant, place in held if tenant == tenant_id]


async def _shown(system: System, workflow: Workflow) -> Mapping[str, Any]:
    tenant_id = workflow["tenantId"]
    return {
        "tenant": (await system.client.get(workflow["links"]["tenant"])).json().get("state"),
        "subscriptions": [each["status"] for each in await system.items("/v1/subscriptions", tenantId=tenant_id)],
        "quotas": await system.items("/v1/quotas", tenantId=tenant_id),
    }


async def assert_same_end(
    system: System, disturbance: Disturbance, expected: Mapping[str, Ending], *, seed: int
) -> Traffic:
    print(f"seed {seed}")  # noqa: T201 - a failure is repeated with it
    async with disturbance.striking(seed, longest=LATEST) as traffic:
        workflows = await run(system, f"seed {seed}")
    await quiet_snapshot(system)
    print(traffic)  # noqa: T201 - how much was disturbed

    found = await system.audit()
    assert (found.findings, found.unfinished) == ((), 0)
    assert await endings(system, workflows) == expected
    assert traffic.events > 12 * len(CUSTOMERS)  # six asks and six answers, or more, if everything was disturbed
    assert traffic.deliveries == 2 * traffic.events
    assert traffic.overtaken > 0
    return traffic


# The in-memory broker


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def broker() -> AsyncIterator[MemoryBroker]:
    broker = MemoryBroker(Manifest.load(), SystemClock())
    yield broker
    await broker.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def interference() -> Disturbance:
    return Disturbance()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def twin(stack: Stack, broker: MemoryBroker, interference: Disturbance) -> AsyncIterator[System]:
    """Six services over the broker's twin, on databases of their own."""
    assert stack.postgres is not None
    passwords = dict.fromkeys((*SERVICES, APPLICATION), DatabasePasswords(owner="throw-away", app="throw-away"))
    urls = await create_databases(stack.postgres.admin_url, passwords, prefix="tenure_twin")
    await asyncio.gather(*(migrate(urls[service].owner, service_migrations(service)) for service in SERVICES))
    environment = {
        service: {
            f"TENURE_{service.upper()}_DATABASE_URL": urls[service].app,
            f"TENURE_{service.upper()}_AMQP_URL": f"amqp://{service}@nowhere/",
            "TENURE_APPLICATION_DATABASE_URL": urls[APPLICATION].owner,
            "TENURE_ADMIN_KEY": stack.admin_key,
            **{name: value for name, value in stack.environment[service].items() if name == ENCRYPTION_KEYS},
        }
        for service in SERVICES
    }
    async with running_system(
        environment,
        audited={name: each.owner for name, each in urls.items()},
        admin_key=stack.admin_key,
        bus=lambda service: DisturbedBus(MemoryBus(broker, service), interference),
    ) as system:
        yield system


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def undisturbed(twin: System) -> Mapping[str, Ending]:
    workflows = await run(twin, "undisturbed")
    await quiet_snapshot(twin)
    expected = await endings(twin, workflows)
    assert Counter(ending.status for ending in expected.values()) == {"completed": 8, "compensated": 8}
    assert {ending.repeated for ending in expected.values()} == {()}
    return expected


async def test_runs_end_the_same_over_the_twin(
    twin: System, interference: Disturbance, broker: MemoryBroker, undisturbed: Mapping[str, Ending]
) -> None:
    runs = [await assert_same_end(twin, interference, undisturbed, seed=seed) for seed in SEEDS]

    assert sum(traffic.overtaken_in_step for traffic in runs) > 0  # some undo came before what it undoes
    assert broker.total_depth() == 0


async def test_what_comes_after_its_time_is_up_leaves_nothing_behind(
    twin: System, interference: Disturbance, broker: MemoryBroker
) -> None:
    """Time flies while messages crawl: steps are asked again, given up and undone while their answers are under way."""
    failures: Counter[str] = Counter()
    for seed in SEEDS[:2]:
        print(f"seed {seed}")  # noqa: T201 - a failure is repeated with it
        async with interference.striking(seed, longest=3 * LATEST), time_flying(twin):
            workflows = await run(twin, f"hurried, seed {seed}")
        failures.update(each["failure"]["code"] if each["failure"] else "none" for each in workflows.values())
        await quiet_snapshot(twin)
        found = await twin.audit()
        assert (found.findings, found.unfinished) == ((), 0)

    print(failures)  # noqa: T201 - what the runs were like
    assert min(failures["timed_out"], failures["none"]) > 0
    assert broker.total_depth() == 0


@asynccontextmanager
async def time_flying(system: System) -> AsyncIterator[None]:
    """Let the time of one attempt pass again and again."""

    async def fly() -> None:
        while True:
            await asyncio.sleep(LATEST / 2)
            system.clock.put_forward(STEP_TIMEOUT_SECONDS)

    flying = asyncio.create_task(fly())
    try:
        yield
    finally:
        flying.cancel()


# RabbitMQ


@pytest.mark.broker
async def test_a_run_ends_the_same_over_rabbitmq(stack: Stack, system: System, disturbance: Disturbance) -> None:
    workflows = await run(system, "undisturbed")
    await quiet_snapshot(system)

    await assert_same_end(system, disturbance, await endings(system, workflows), seed=1)

    await eventually(lambda: _all_is_read(stack), describe="empty work queues")
    for service in SERVICES:
        assert await _ready(stack, service, parking_queue_of(service)) == 0


async def _all_is_read(stack: Stack) -> bool:
    return not any([await _ready(stack, service, work_queue_of(service)) for service in SERVICES])


async def _ready(stack: Stack, service: str, queue_name: str) -> int | None:
    async with channel_of(broker_login(stack, service)) as channel:
        queue = await channel.declare_queue(queue_name, passive=True)
        return queue.declaration_result.message_count
