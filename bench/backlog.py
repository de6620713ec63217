"""How much memory a service takes that starts before a full queue."""

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg

from bench.onboardings import until_ready
from deploy.local.children import Child, running_children
from deploy.local.stack import Stack
from shared.contracts import billing, identity, metrics, provisioning, tenant
from shared.contracts.base import Message
from shared.ids import TimeOrderedIds
from shared.messaging.bus import Outcome, Parcel
from shared.messaging.event import BATCH, Event, join_batch
from shared.messaging.rabbitmq import RabbitBus
from shared.messaging.topology import exchange_of

_AT_ONCE = 1000
_TOGETHER = 200
_POLL_SECONDS = 0.1
_LONGEST_SECONDS = 600.0


async def peak_memory(stack: Stack, service: str, *, messages: int) -> tuple[int, float]:
    """Fill a service's queue, half one by one and half in full batches; let it start, and work until that is empty.

    Returns:
        The most memory that the process had in use, in bytes, and the seconds from its start to the empty queue.
    """
    publisher = "tenant" if service == "onboarding" else "onboarding"
    url = stack.environment[publisher][f"TENURE_{publisher.upper()}_AMQP_URL"]
    bus = RabbitBus(url, name="bench")
    ids = TimeOrderedIds()
    for _ in range(messages // _AT_ONCE):
        await _publish(bus, [_event(service, publisher, ids.new(), ids.new()) for _ in range(_AT_ONCE)])
    await bus.close()
    started = asyncio.get_running_loop().time()
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as folder:
        environment = {service: stack.environment[service]}
        async with (
            asyncio.timeout(_LONGEST_SECONDS),
            running_children(environment, Path(folder), print) as (child,),
        ):
            await until_ready(child.port)
            await _until_handled(stack.databases[service].app, messages)
            return peak_of(child), asyncio.get_running_loop().time() - started


async def _publish(bus: RabbitBus, events: list[Event]) -> None:
    half = len(events) // 2
    alone = [[event] for event in events[:half]]
    together = [events[start : start + _TOGETHER] for start in range(half, len(events), _TOGETHER)]
    parcels = [
        Parcel(
            exchange_of(batch[0].publisher),
            batch[0].type,
            join_batch(event.encode() for event in batch),
            BATCH,
            str(batch[0].id),
        )
        for batch in (*alone, *together)
    ]
    if set(await bus.publish(parcels)) != {Outcome.CONFIRMED}:
        raise RuntimeError("the broker did not take all messages")


def _event(service: str, publisher: str, event_id: UUID, workflow_id: UUID) -> Event:
    message = _message(service, str(workflow_id))
    return Event(event_id, publisher, datetime.now(UTC), message, workflow_id=workflow_id, step="bench")


def _message(service: str, tenant_id: str) -> Message:
    match service:
        case "tenant":
            return tenant.RegisterTenant(
                tenant_id=tenant_id, customer_name=f"Customer {tenant_id}", email="owner@example.com", tier="standard"
            )
        case "identity":
            return identity.CreateAdministrators(
                tenant_id=tenant_id, customer_name=f"Customer {tenant_id}", emails=(f"owner-{tenant_id}@example.com",)
            )
        case "billing":
            return billing.OpenAccount(tenant_id=tenant_id, customer_name=f"Customer {tenant_id}", plan="standard")
        case "metrics":
            return metrics.TrackTenant(tenant_id=tenant_id, quotas={"requests": 1000})
        case "provisioning":
            return provisioning.ProvisionEnvironment(tenant_id=tenant_id, isolation="pool")
    return tenant.CatalogPublished(tenant_id="catalog", revision=0, tiers=(), default_tier="standard", products=())


async def _until_handled(database_url: str, messages: int) -> None:
    """Wait until the inbox has all of them; each is there once it has taken effect."""
    connection = await asyncpg.connect(database_url)
    try:
        before = -1
        while before < messages:
            await asyncio.sleep(_POLL_SECONDS)
            before = await connection.fetchval("SELECT count(*) FROM inbox")
    finally:
        await connection.close()


def peak_of(child: Child) -> int:
    """Return the most memory that a process ever had in use, in bytes."""
    status = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
