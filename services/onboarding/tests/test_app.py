"""The service put together: what arrives over the broker moves what was accepted over HTTP."""

import asyncio
from typing import Any

import httpx2
import orjson

from services.onboarding.tests.catalogue import CATALOG, MINIMAL, answers
from services.onboarding.tests.support import IDS, Replica, told
from shared.contracts.base import Fact
from shared.messaging.bus import Parcel
from shared.messaging.event import BATCH, Event, decode, join_batch, parse_batch
from shared.messaging.topology import exchange_of
from shared.testing import eventually
from shared.testing.memory_bus import MemoryBroker, MemoryBus

OTHERS = ("tenant", "identity", "billing", "metrics", "provisioning")


async def tell(broker: MemoryBroker, event: Event) -> None:
    await MemoryBus(broker, event.publisher).publish(
        [Parcel(exchange_of(event.publisher), event.type, join_batch([event.encode()]), BATCH, str(IDS.new()))]
    )


async def answer_everything(broker: MemoryBroker, service: str) -> None:
    """Be another service: do whatever is asked."""
    async with MemoryBus(broker, service).consume(f"{service}.work", prefetch=50) as consumption:
        while True:
            deliveries = await consumption.receive(50)
            for delivery in deliveries:
                for ask in map(decode, parse_batch(delivery.body)):
                    if ask.step is not None and ask.workflow_id is not None:
                        fact: Fact = answers(ask.message.tenant_id)[ask.step]
                        await tell(broker, told(ask.workflow_id, ask.step, fact, ask_id=ask.id))
            await consumption.acknowledge(deliveries[-1])


async def test_an_onboarding_completes_over_the_broker_and_whoever_waits_is_told(
    replica: Replica, broker: MemoryBroker
) -> None:
    broker.declare_queue("listener")
    broker.bind("tenure.status", "listener", "#")
    others = [asyncio.create_task(answer_everything(broker, service)) for service in OTHERS]
    workflow = (await replica.client.post("/v1/onboardings", json=MINIMAL)).json()

    async with asyncio.timeout(20):
        ended = (await replica.client.get(f"/v1/workflows/{workflow['id']}", params={"wait": "60"})).json()

    assert ended["status"] == "completed"
    assert {step["status"] for step in ended["steps"]} == {"succeeded"}
    await eventually(lambda: broker.depth("listener") == 2)
    keys = [message.routing_key for message in broker.messages("listener")]
    assert keys == [f"status.onboard.{status}.{workflow['tenantId']}" for status in ("started", "completed")]
    data: dict[str, Any] = orjson.loads(broker.messages("listener")[-1].body)
    assert (data["workflowId"], data["kind"], data["status"]) == (workflow["id"], "onboard", "completed")
    for other in others:
        other.cancel()


async def test_the_catalog_that_is_told_is_what_can_be_ordered(
    client: httpx2.AsyncClient, replica: Replica, broker: MemoryBroker
) -> None:
    newer = CATALOG.model_copy(update={"revision": 2, "tiers": ("gold",), "default_tier": "gold"})
    event = told(IDS.new(), "none", newer)

    await tell(broker, Event(event.id, "tenant", event.time, newer))

    await eventually(lambda: _is_ordered(client, "gold"))
    assert (await client.post("/v1/onboardings", json={**MINIMAL, "tier": "standard"})).status_code == 422


async def _is_ordered(client: httpx2.AsyncClient, tier: str) -> bool:
    answer = await client.post("/v1/onboardings", json={**MINIMAL, "customerName": "Golden", "tier": tier})
    return answer.status_code == 202


async def test_a_service_that_has_its_catalog_its_database_and_its_broker_is_ready(
    client: httpx2.AsyncClient,
) -> None:
    async def is_ready() -> bool:
        return (await client.get("/readyz")).status_code == 200

    await eventually(is_ready)
    assert (await client.get("/readyz")).json()["checks"] == dict.fromkeys(
        ("database", "broker", "consumer", "catalog", "definitions"), "ok"
    )
